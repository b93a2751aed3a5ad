"""Serve an artifact over HTTP, in TF Serving's format and with decoded answers.

    python -m serving artifacts/reviews [--runtime tflite --variant int8] [--port 8501]
    python -m serving models [--workers 2]
    python -m serving add artifacts/reviews models
    python -m serving rollback models reviews [--to 1]
    python -m serving label models reviews stable 1
    python -m serving tf-serving artifacts/reviews --out deploy
    python -m serving web artifacts/reviews --out site
    python -m serving batch artifacts/reviews --data csv:rows.csv --out answers.jsonl
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_pipeline import command
from tf_pipeline.config import add_flags, from_flags
from tf_pipeline.errors import USER_ERROR_EXIT, UserError

from . import store_cli
from .options import DeployOptions, Limits, Queueing, ServeOptions, WebOptions

log = logging.getLogger(__name__)

INTERRUPTED_EXIT = 130  # what a shell reports after Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Not subcommands of argparse: an artifact stands in their place otherwise.
    if words and words[0] in VERBS:
        return command.run(VERBS[words[0]](), words[1:])
    flags = _parser().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        from .running import serve

        serve(flags.artifact, from_flags(ServeOptions, flags), from_flags(Limits, flags),
              from_flags(Queueing, flags))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT
    except ModuleNotFoundError as error:
        print(f"error: The module {error.name!r} is not installed. Run: pip install -r "
              "serving/requirements.txt (and --runtime saved_model needs tensorflow and "
              "tensorflow-text).", file=sys.stderr)
        return USER_ERROR_EXIT
    except KeyboardInterrupt:  # while the model was loading
        return INTERRUPTED_EXIT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving", description="Serve an artifact over HTTP: TF Serving's "
        ":predict, and :answer with decoded answers.",
        epilog="`python -m serving tf-serving --help`: write a folder that TF Serving starts from. "
        "`python -m serving web --help`: write a static site whose page runs the model itself. "
        "`python -m serving batch --help`: answer a file of rows. `add`, `rollback` and `label` "
        "fill a folder of models and choose their versions.")
    parser.add_argument("artifact", type=Path, help="folder that `python -m export convert` wrote, "
                        "or one of models that `python -m serving add` filled")
    add_flags(parser, ServeOptions)
    add_flags(parser.add_argument_group("limits of one request"), Limits)
    add_flags(parser.add_argument_group("waiting"), Queueing)
    return parser


def _deploy_parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving tf-serving", description="Write a folder that TF Serving starts "
        "from: models by version, their configuration, and files for Docker and Kubernetes.")
    parser.add_argument("artifacts", type=Path, nargs="+",
                        help="folders that `python -m export convert` wrote, with a SavedModel")
    add_flags(parser, DeployOptions)
    parser.set_defaults(command=_deploy)
    return parser


def _deploy(flags: argparse.Namespace) -> None:
    from .deploy import deploy

    options = from_flags(DeployOptions, flags)
    deploy(flags.artifacts, options)
    print(f"Wrote {options.out}. To start it: cd {options.out} && docker compose up")


def _web_parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m serving web", description="Write an artifact as a static site: pages that "
        "run the model in the browser, for any web server.")
    parser.add_argument("artifact", type=Path, help="folder that `python -m export convert` wrote")
    add_flags(parser, WebOptions)
    parser.set_defaults(command=_web)
    return parser


def _web(flags: argparse.Namespace) -> None:
    from . import static_site

    out = static_site.write(flags.artifact, from_flags(WebOptions, flags))
    megabytes = sum(path.stat().st_size for path in out.rglob("*")) / 1e6
    log.info("Wrote %s, %.1f MB of static files. To look at it: python -m http.server --bind "
             "127.0.0.1 --directory %s - then open http://127.0.0.1:8000/", out, megabytes,
             shlex.quote(str(out)))


def _batch_parser() -> argparse.ArgumentParser:
    from .batch.cli import parser

    return parser()


VERBS = {"add": store_cli.adding, "rollback": store_cli.rolling_back,
         "label": store_cli.labelling, "tf-serving": _deploy_parser, "web": _web_parser,
         "batch": _batch_parser}
