"""Names of LMs that both environments of test_sae_bench_alone.py use."""

# One that RAVEL knows too.
MODEL = "pythia-160m-deduped"
# One that unlearning knows, and the LM of the SAEs that it judges.
CHAT, BASE = "gemma-2-2b-it", "gemma-2-2b"
