"""One runtime a file: `load(path) -> Runner`. Parity, evaluation and serving share them."""
