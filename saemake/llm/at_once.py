"""How much of a text an LM computes at once. Plans know it too, so this is without torch."""

# Limit on positions per run on a CPU (at least one context). Larger outputs land in fresh memory,
# which is slow to touch (docs/benchmarks.md).
POSITIONS_TOGETHER = 1024
# Limit on positions whose logits are computed together. Low on a CPU for the same reason.
LOGITS_TOGETHER = {"cpu": 128, "cuda": 2048}
