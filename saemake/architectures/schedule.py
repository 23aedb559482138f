"""Schedules of the learning rate, the sparsity penalty and k, as pure functions of the step."""


def learning_rate_scale(step: int, steps: int, warmup_steps: int, decay_start: int) -> float:
    """Linear warm-up from 0, constant, then linear decay that would reach 0 at `steps`.

    As `get_lr_schedule` of dictionary_learning: the first step of a warm-up has rate 0.
    """
    if step < warmup_steps:
        return step / warmup_steps
    if step >= decay_start:
        return (steps - step) / (steps - decay_start)
    return 1.0


def restarting_scale(step: int, warmup_steps: int, restart_steps: int) -> float:
    """Linear warm-up from 0 to 1, anew every `restart_steps`; no decay. As `get_lr_schedule` of
    dictionary_learning with its `resample_steps`."""
    return min((step % restart_steps) / warmup_steps, 1.0) if warmup_steps else 1.0


def sparsity_scale(step: int, warmup_steps: int) -> float:
    """Linear growth of the sparsity penalty from 0 to 1 over `warmup_steps`; 1 without any."""
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0


def annealed_k(step: int, k: int, start_k: int, anneal_steps: int) -> int:
    """k of a step, falling linearly from `start_k` to `k`, rounded down.

    As dictionary_learning's `update_annealed_k` (later than 0.1.0), which runs after each step:
    step 0 has k itself, step 1 `start_k`, step `anneal_steps` + 1 and those after it k.
    """
    if step == 0:
        return k
    ratio = min(step - 1, anneal_steps) / anneal_steps
    return int(start_k * (1 - ratio) + k * ratio)
