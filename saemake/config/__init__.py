"""The configuration: its sections, the whole, its checks, and what it says of a model."""
