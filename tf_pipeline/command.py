"""What the three command lines share: logging, one-line errors and exit codes."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from .errors import (
    PARITY_EXIT,
    RESUMABLE_EXIT,
    USER_ERROR_EXIT,
    ParityError,
    Preempted,
    UserError,
    wrong_backend,
)
from .install import pip_install_file

ROOMS = ("tf_pipeline", "export", "serving")
Command = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """Answers a wrong flag as every other mistake is answered: in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit, without the usage of all flags."""
        message = message[:1].upper() + message[1:].rstrip(".")
        print(f"error: {message}. `{self.prog} --help` lists all flags.", file=sys.stderr)
        sys.exit(USER_ERROR_EXIT)


def run(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parse, call the chosen command, and turn errors that a user can mend into one line."""
    flags = _parse(parser, argv)
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
    except Preempted as error:
        return _fail(error, RESUMABLE_EXIT)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ROOMS:  # a fault of ours
            raise
        if error.name in ("torch", "openvino"):  # Keras imports its backend's
            return _fail(wrong_backend(error.name), USER_ERROR_EXIT)
        print(f"error: The module {error.name!r} is not installed. Run: "
              f"{pip_install_file('requirements.txt')}", file=sys.stderr)
        return USER_ERROR_EXIT
    except KeyboardInterrupt:
        print("\nerror: interrupted; nothing was published.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse; texts may also stand behind an option, where argparse reads no more of them."""
    flags, rest = parser.parse_known_args(argv)
    place = rest.index("--") if "--" in rest else len(rest)  # behind it a text may open with a dash
    options = [word for word in rest[:place] if word.startswith("-")]
    if rest and (options or not hasattr(flags, "texts")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        flags.texts += rest[:place] + rest[place + 1:]
    return flags


def _fail(error: Exception, code: int) -> int:
    print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
    return code


def show(content: Any, text: str, as_json: bool) -> None:
    """Print a result: for people, or one JSON document."""
    print(json.dumps(content, indent=2, ensure_ascii=False) if as_json else text)
