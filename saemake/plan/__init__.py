"""What targets cost, and what a job will do, in words; nothing is run."""
