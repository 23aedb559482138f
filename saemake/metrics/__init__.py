"""The rows of metrics.json, and what they warn of."""
