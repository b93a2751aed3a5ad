"""Run a command and print its peak memory last: `python -m benchmarks.peak COMMAND ARGUMENT ...`.

A process of its own, as Linux counts for a child also what its parent held when it was made: a
test or benchmark of 5 GB would see 5 GB for every command. The unit is ru_maxrss's.
"""

import resource
import subprocess
import sys


def main(words: list[str]) -> int:
    """Give the command's exit status."""
    if not words:
        raise SystemExit("error: no command is given. Write it behind: python -m benchmarks.peak "
                         "COMMAND ARGUMENT ...")
    try:
        status = subprocess.run(words, check=False).returncode
    except OSError as error:
        raise SystemExit(f"error: {words[0]} cannot be started: {error.strerror}. Give a program "
                         "and its arguments.") from None
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
