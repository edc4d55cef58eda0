"""A folder of the user's own files, read, indexed and searched."""
