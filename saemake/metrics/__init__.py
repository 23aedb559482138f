"""The rows of metrics.json, and their warnings."""
