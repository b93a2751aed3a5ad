"""Answer files of any size: `python -m serving batch`, and the same for rows of another engine."""
