"""How an LM is spread over several devices. Plans know it too, so this is without torch."""


def places(blocks: int, devices: int) -> list[int]:
    """The place of each block's device among so many: blocks in their order, on each device equally
    many or one more or less."""
    return [block * devices // blocks for block in range(blocks)]
