"""An artifact folder in, answers out. `python -m serving --help`."""
