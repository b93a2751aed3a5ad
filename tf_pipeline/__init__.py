"""Records in, a trained run folder out. `python -m tf_pipeline --help`."""
