"""`python -m export convert | verify | inspect`."""

import argparse
import os
from pathlib import Path

from tf_pipeline import command
from tf_pipeline.config import add_flags, from_flags
from tf_pipeline.quiet import import_tensorflow

from .options import ConvertOptions


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives the exit code: 0, 2 for a user error, 3 for failed parity."""
    parser = command.Parser(
        prog="python -m export", description="A trained run to files for every device, each "
        "proved to give the trained model's answers.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    convert = verbs.add_parser("convert", help="write and check an artifact",
                               description="Write SavedModel, TFLite and ONNX files of a run, "
                               "compare each with the trained model, and publish all or nothing.")
    convert.add_argument("run", type=Path, help="run folder")
    add_flags(convert, ConvertOptions)
    convert.set_defaults(command=_convert)
    verify = verbs.add_parser("verify", help="check an artifact's files and answers again")
    verify.set_defaults(command=_verify)
    inspect = verbs.add_parser("inspect", help="show what an artifact holds")
    inspect.set_defaults(command=_inspect)
    for verb in (verify, inspect):
        verb.add_argument("artifact", type=Path, help="artifact folder")
    for verb in (convert, verify, inspect):
        verb.add_argument("--json", action="store_true", help="print one JSON document")
    return command.run(parser, argv)


def _hide_gpus() -> None:
    """Judge on the CPU, where most files will run; read when TensorFlow is imported.

    GPUs since Ampere round the factors of float32 products to 10 bits (TF32), which is more than
    float32 files may differ.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def _convert(flags: argparse.Namespace) -> None:
    options = from_flags(ConvertOptions, flags)
    from tf_pipeline.run import Run

    from . import companions, pipeline

    if options.out is not None:  # before the seconds that TensorFlow takes
        pipeline.refuse_existing(options.out)
    run = Run.load(flags.run)
    _hide_gpus()
    # Keras reads its backend once, on import: exports always start from TensorFlow graphs.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import_tensorflow()
    manifest = pipeline.build(run, options)
    command.show(manifest.to_dict(), f"{companions.table(manifest)}\n\nWrote {options.out}",
                 flags.json)


def _verify(flags: argparse.Namespace) -> None:
    _hide_gpus()
    from .verification import verify

    rows = verify(flags.artifact)
    lines = [f"{row['file']}: same answers on {row['rows']} golden rows" if row["ok"] else
             f"{row['file']}: DRIFT, published with --accept-drift: {'; '.join(row['reasons'])}"
             for row in rows]
    command.show(rows, "\n".join([*lines, f"Checked {flags.artifact}"]), flags.json)


def _inspect(flags: argparse.Namespace) -> None:
    from tf_pipeline.artifact import Manifest

    from . import companions

    manifest = Manifest.load(flags.artifact)
    lines = [
        f"{manifest.name} version {manifest.version}: {manifest.task}, {len(manifest.labels)} "
        f"labels ({', '.join(manifest.labels[:10])}{', ...' * (len(manifest.labels) > 10)})",
        f"from {manifest.run['backbone']}, texts up to {manifest.max_len} tokens, "
        f"made {manifest.created}", "", companions.table(manifest)]
    lines += [f"{g.path} needs in the server: {', '.join(g.required_ops)}"
              for g in manifest.graphs if g.required_ops]
    lines += [f"refused: {r['path']}: {r['reason']}" for r in manifest.refused]
    if manifest.drift:
        lines.append("DRIFT: published although a file does not give the trained model's answers.")
    command.show(manifest.to_dict(), "\n".join([*lines, f"Read {flags.artifact}"]), flags.json)
