"""What each file was made from, what the config asks of it, and how the two differ."""
