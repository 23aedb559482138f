"""Schedules of the learning rate and of the sparsity penalty, as pure functions of the step."""


def learning_rate_scale(step: int, steps: int, warmup_steps: int, decay_start: int) -> float:
    """Linear warm-up from 0, constant, then linear decay that would reach 0 at `steps`.

    As `get_lr_schedule` of dictionary_learning: the first step of a warm-up has rate 0.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if step >= decay_start:
        return (steps - step) / (steps - decay_start)
    return 1.0


def sparsity_scale(step: int, warmup_steps: int) -> float:
    """Linear growth of the sparsity penalty from 0 to 1 over `warmup_steps`; 1 without any."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0
