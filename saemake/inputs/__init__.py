"""The inputs of jobs, fetched from where the config says: the model's files and the text."""
