"""A folder of the user's own files, read, indexed and searched."""

RETRIEVED = 20  # documents of a library that a question is answered from
