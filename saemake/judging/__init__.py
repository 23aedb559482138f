"""One LM pass for everything that is judged together."""
