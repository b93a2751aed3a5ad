"""What the three command lines share: logging, one-line errors and exit codes."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from .errors import PARITY_EXIT, USER_ERROR_EXIT, ParityError, UserError

Command = Callable[[argparse.Namespace], int | None]


def run(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse, call the chosen command, and turn errors that a user can mend into one line."""
    flags = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("tensorflow", "absl", "h5py", "urllib3", "filelock", "httpx",
                  "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # Says which accelerators it does not find; that one is there and unused it says as a warning.
    logging.getLogger("jax").setLevel(logging.WARNING)
    # TensorFlow reads it once, when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # A notebook's own backend is inherited, and importing matplotlib fails where that is not
    # installed. Pictures go to files.
    os.environ["MPLBACKEND"] = "agg"
    if getattr(flags, "cache", None):
        os.environ["KIT_CACHE"] = flags.cache
    try:
        return flags.command(flags) or 0
    except UserError as error:
        return _fail(error, USER_ERROR_EXIT)
    except ParityError as error:
        return _fail(error, PARITY_EXIT)
    except KeyboardInterrupt:
        print("\nerror: interrupted; nothing was published.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(error: Exception, code: int) -> int:
    print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
    return code


def show(content: Any, text: str, as_json: bool) -> None:
    """Print a result: for people, or one JSON document."""
    print(json.dumps(content, indent=2, ensure_ascii=False) if as_json else text)
