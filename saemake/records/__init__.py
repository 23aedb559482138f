"""Records of what each file was made from, what the config asks for, and how the two differ."""
