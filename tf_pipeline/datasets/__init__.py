"""One reader a file: `SCHEMES`, `OPTIONS` and `read(location, options)`; see `sources.py`."""
