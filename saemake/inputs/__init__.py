"""What jobs read, brought from where the config says: the model's files, the text."""
