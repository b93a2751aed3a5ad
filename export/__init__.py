"""A run folder in, a verified artifact folder out. `python -m export --help`."""
