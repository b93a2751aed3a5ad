"""The verbs that fill a folder of models: add, rollback, label."""

import argparse
from pathlib import Path

from tf_pipeline import command


def adding() -> argparse.ArgumentParser:
    """Build the parser of `python -m serving add`."""
    parser = command.Parser(
        prog="python -m serving add", description="Copy an artifact into a folder of models, as "
        "the version that a running server takes next.")
    parser.add_argument("artifact", type=Path, help="folder that `python -m export convert` wrote")
    parser.add_argument("models", type=Path, help="folder of models; made if it is not there")
    parser.add_argument("--name", help="what requests call the model; default: the artifact's name")
    parser.add_argument("--version", type=int, help="a number; default: one above those there")
    parser.set_defaults(command=_add)
    return parser


def _add(flags: argparse.Namespace) -> None:
    from .store import Store

    target = Store(flags.models).add(flags.artifact, flags.name, flags.version)
    print(f"Wrote {target}. To serve it: python -m serving {flags.models}")


def rolling_back() -> argparse.ArgumentParser:
    """Build the parser of `python -m serving rollback`."""
    parser = command.Parser(
        prog="python -m serving rollback", description="Serve an earlier version of a model again, "
        "or with --to any other; running servers follow.")
    parser.add_argument("models", type=Path, help="folder of models")
    parser.add_argument("name", help="the model")
    parser.add_argument("--to", type=int, help="version; default: the one before that served now")
    parser.set_defaults(command=_roll_back)
    return parser


def _roll_back(flags: argparse.Namespace) -> None:
    from .store import Store

    version = Store(flags.models).serve_newest(flags.name, flags.to)
    print(f"Wrote {flags.models / flags.name / 'versions.json'}. Version {version} of {flags.name} "
          "is served.")


def labelling() -> argparse.ArgumentParser:
    """Build the parser of `python -m serving label`."""
    parser = command.Parser(
        prog="python -m serving label", description="Let a label mean a version: requests to "
        "/v1/models/NAME/labels/LABEL go there. Versions with a label stay loaded.")
    parser.add_argument("models", type=Path, help="folder of models")
    parser.add_argument("name", help="the model")
    parser.add_argument("label", help="e.g. stable")
    parser.add_argument("version", type=int)
    parser.set_defaults(command=_label)
    return parser


def _label(flags: argparse.Namespace) -> None:
    from .store import Store

    Store(flags.models).label(flags.name, flags.label, flags.version)
    print(f"Wrote {flags.models / flags.name / 'versions.json'}. {flags.label} means version "
          f"{flags.version} of {flags.name}.")
