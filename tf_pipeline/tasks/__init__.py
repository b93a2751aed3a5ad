"""One task a file: encode, build, decode and score. The file name is the task's name."""
