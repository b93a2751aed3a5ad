"""`python -m tf_pipeline train prepare evaluate predict import vocabulary doctor ...`."""

import argparse
import json
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import command
from .config import (
    ImportConfig,
    PrepareConfig,
    TrainConfig,
    TrimConfig,
    VocabularyConfig,
    add_flags,
    from_flags,
)
from .errors import DOCTOR_EXIT, USER_ERROR_EXIT, UserError
from .quiet import import_tensorflow


def main(argv: list[str] | None = None) -> int:
    """Run one command; gives the exit code: 0, 2 for a user error, 130 or 143 for a signal."""
    parser = command.Parser(
        prog="python -m tf_pipeline", description="Fine-tune BERT on your text, and ask the "
        "trained model or any file exported from it.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    argv = sys.argv[1:] if argv is None else argv
    _add_train(verbs, argv)
    _add_prepare(verbs, argv)
    _add_evaluate(verbs)
    _add_predict(verbs)
    _add_import(verbs)
    _add_vocabulary(verbs)
    _add_trim(verbs)
    for name, function, text in (("backbones", _backbones, "list where a backbone can come from"),
                                 ("datasets", _datasets, "list what data can be read")):
        verb = verbs.add_parser(name, help=text)
        verb.set_defaults(command=function)
        _common(verb)
    _add_doctor(verbs)
    return command.run(parser, argv)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--cache", metavar="DIR", help="folder of downloads (default: KIT_CACHE, "
                        "else the user's cache folder)")


def _add_train(verbs: Any, argv: list[str]) -> None:
    from . import plugins, tasks

    train = verbs.add_parser(
        "train", help="fine-tune a backbone and write a run folder",
        description="Fine-tune a backbone. What --validation and --test do not give is cut from "
        "--train by a hash of the text.",
        epilog=f"Tasks: {', '.join(plugins.names(tasks))}. `train --task NAME --help` adds the "
        "task's own flags.")
    add_flags(train, TrainConfig)
    train.add_argument("--resume", action="store_true", help="go on with the training in --out "
                       "where it was cut off; begin one where there is none")
    train.add_argument("--data-report", action="store_true",
                       help="only look at the data: sizes, balance, lengths, duplicates, leaks")
    _common(train)
    train.set_defaults(command=_train)
    _add_task_flags(train, argv)


def _add_prepare(verbs: Any, argv: list[str]) -> None:
    verb = verbs.add_parser(
        "prepare", help="tokenize data once, for trainings that do not hold them in memory",
        description="Write token ids as TFRecord files, in a folder that `train --train "
        "prepared:FOLDER` reads.")
    add_flags(verb, PrepareConfig)
    verb.set_defaults(command=_prepare)
    _common(verb)
    _add_task_flags(verb, argv)


def _add_task_flags(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Add those of the task that the command line names, if it names one."""
    from . import plugins, tasks

    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--task")
    name = early.parse_known_args(argv)[0].task
    if name in plugins.names(tasks):
        add_flags(parser.add_argument_group(f"task {name}"), plugins.load(tasks, name).Options)


def _add_evaluate(verbs: Any) -> None:
    evaluate = verbs.add_parser("evaluate", help="score a run or an artifact on labelled data")
    evaluate.add_argument("model", type=Path, help="run or artifact folder")
    evaluate.add_argument("--data", metavar="SPEC", help="labelled data, e.g. csv:test.csv "
                          "(default for a run: the test rows that it keeps)")
    evaluate.add_argument("--out-of-scope", metavar="SPEC", help="texts that no label fits: also "
                          "say how well the confidence tells them apart")
    evaluate.add_argument("--out", type=Path, metavar="FILE", help="also write the scores as JSON")
    evaluate.add_argument("--report", type=Path, metavar="FILE.html", help="also write one page: "
                          "plots, scores of each label, the most confident errors")
    evaluate.set_defaults(command=_evaluate)
    _add_choice(evaluate)


def _add_predict(verbs: Any) -> None:
    predict = verbs.add_parser("predict", help="answer texts: arguments, --file or stdin")
    predict.add_argument("model", type=Path, help="run or artifact folder")
    predict.add_argument("texts", nargs="*", metavar="TEXT", help="texts to answer")
    predict.add_argument("--file", type=Path, help="file with one text a line")
    predict.set_defaults(command=_predict)
    _add_choice(predict)


def _add_import(verbs: Any) -> None:
    verb = verbs.add_parser("import", help="make a run of a model that transformers fine-tuned")
    verb.add_argument("folder", type=Path, help="folder that save_pretrained wrote")
    add_flags(verb, ImportConfig)
    verb.set_defaults(command=_import)
    _common(verb)


def _add_vocabulary(verbs: Any) -> None:
    verb = verbs.add_parser("vocabulary", help="make a vocabulary of your texts, for a new BERT")
    add_flags(verb, VocabularyConfig)
    verb.set_defaults(command=_vocabulary)
    _common(verb)


def _add_trim(verbs: Any) -> None:
    verb = verbs.add_parser("trim", help="make a run smaller: keep the pieces that texts use")
    verb.add_argument("run", type=Path, help="run folder")
    add_flags(verb, TrimConfig)
    verb.set_defaults(command=_trim)
    _common(verb)


def _add_doctor(verbs: Any) -> None:
    codes = ", ".join(f"{code} {area}" for area, code in DOCTOR_EXIT.items())
    doctor = verbs.add_parser(
        "doctor", help="find what is wrong with this machine, and the cure",
        description="Look at versions, imports, devices, disk, memory, caches, permissions and "
        "network. Each finding comes with a command that cures it.",
        epilog="Exit code: 0 if training, export and serving would work; else the sum of what "
        f"would not: {codes}. Warnings do not count.")
    doctor.set_defaults(command=_doctor)
    _common(doctor)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runtime",
                        choices=("onnx", "tflite", "saved_model", "safetensors", "keras"),
                        help="which of an artifact's runtimes (default: onnx)")
    parser.add_argument("--variant", help="which variant, e.g. int8 (default: float32)")
    parser.add_argument("--length", type=int, help="which TFLite length "
                        "(default: for each text the shortest that holds it)")
    _common(parser)


def _train(flags: argparse.Namespace) -> int:
    config = from_flags(TrainConfig, flags)
    from .task import options_of

    options: Any = from_flags(options_of(config.task), flags)
    if flags.data_report:
        return _data_report(config, options, flags)
    import_tensorflow()
    from .metrics import table_text
    from .training import fit

    run = fit(config, options, flags.resume)
    scores = run.metrics["test"]
    command.show({"run": str(run.path), "test": scores},
                 f"{table_text(scores)}\n\ntest {run.info['metric']} "
                 f"{scores[run.info['metric']]:.4f} on {scores['examples']} examples\n"
                 f"Wrote {run.path}", flags.json)
    if run.info["stopped"]:
        name = run.info["stopped"]
        return 128 + signal.Signals[name] if name.startswith("SIG") else USER_ERROR_EXIT
    return 0


def _prepare(flags: argparse.Namespace) -> None:
    from .task import options_of

    config = from_flags(PrepareConfig, flags)
    options: Any = from_flags(options_of(config.task), flags)
    import_tensorflow()
    from .prepared import prepare

    index = prepare(config, options)
    layout = index["layout"]
    command.show({"out": str(config.out), **layout}, f"{layout['examples']:,} examples, "
                 f"{layout['tokens']:,} tokens, the longest text {layout['longest']}\n"
                 f"Wrote {config.out}", flags.json)


def _data_report(config: TrainConfig, options: Any, flags: argparse.Namespace) -> int:
    import_tensorflow()
    from . import data_report
    from .reading import read_checkpoint, read_data

    parts, task = read_data(config, options)
    encoder = read_checkpoint(config, task).encoder
    most = 1 << 20  # nothing is cut, so that the lengths are the texts' own

    def lengths(records: list[dict[str, Any]]) -> list[int]:
        return task.encode(records, encoder, most).lengths.tolist()

    report = data_report.report(parts, lengths, config.max_len)
    command.show(report, data_report.as_text(report), flags.json)
    return 0


def _doctor(flags: argparse.Namespace) -> int:
    from . import doctor

    findings = doctor.examine()
    command.show(doctor.as_json(findings), doctor.as_text(findings), flags.json)
    return doctor.exit_code(findings)


def _open(flags: argparse.Namespace) -> Any:
    if (flags.model / "run.json").exists():
        import_tensorflow()
    from .predictor import Predictor

    return Predictor(flags.model, flags.runtime, flags.variant, flags.length)


def _evaluate(flags: argparse.Namespace) -> None:
    from . import files, report, sources
    from .metrics import table_text
    from .predictor import describe

    for flag, path in (("--out", flags.out), ("--report", flags.report)):
        if path is not None:
            files.refuse_existing(path, flag)
    predictor = _open(flags)
    if flags.data is not None:
        records = list(sources.read(flags.data))
    elif predictor.manifest is None:
        from .run import Run

        records = Run.load(flags.model).evaluation("test")
    else:
        raise UserError(f"--data is missing: the artifact {flags.model} keeps no labelled rows. "
                        "Name some, e.g. --data csv:test.csv.")
    lacking = [f for f in predictor.task.FIELDS if any(f not in r for r in records)]
    if lacking:
        raise UserError(f"--data {flags.data} has records without {', '.join(lacking)}. Name the "
                        f"column, e.g. ?{lacking[0]}=COLUMN.")
    outside = list(sources.read(flags.out_of_scope)) if flags.out_of_scope else []
    records = predictor.prepare(records)
    found, outputs = predictor.examine(records)
    scores = {**describe(predictor), **found}
    metric = predictor.task.METRIC
    text = (f"{table_text(scores)}\n\n{predictor.name}: {metric} {scores[metric]:.4f} on "
            f"{scores['examples']} examples")
    text += "".join(f"\nAt confidence {row['confidence']:.3f} and above: {row['accuracy']:.0%} "
                    f"right, {row['answered']:.1%} of the texts" for row in
                    scores.get("selective", ()))
    if outside:
        apart = scores["out_of_scope"] = predictor.out_of_scope(records, outputs, outside)
        text += (f"\nOut of scope, {apart['examples']} texts: AUROC {apart['auroc']:.4f}; below "
                 f"confidence {apart['threshold']:.4f} are {apart['recall']:.1%} of them, and "
                 f"{apart['accuracy']:.1%} of the texts in scope are answered and right")
    if flags.out is not None:
        files.write_text(flags.out, json.dumps(scores, indent=2) + "\n")
        text += f"\nWrote {flags.out}"
    if flags.report is not None:
        report.write(flags.report, report.evaluation(predictor, records, outputs, found,
                                                     flags.data))
        text += f"\nWrote {flags.report}"
    command.show(scores, text, flags.json)


def _import(flags: argparse.Namespace) -> None:
    import_tensorflow()
    from .importing import import_folder

    run = import_folder(flags.folder, from_flags(ImportConfig, flags))
    scores = run.metrics["test"]
    judged = (f"its own answers on {scores['examples']} texts" if run.info["own_answers"] else
              f"test {run.task.METRIC} {scores[run.task.METRIC]:.4f} on {scores['examples']} texts")
    command.show({"run": str(run.path), "task": run.info["task"], "labels": run.task.labels,
                  "own_answers": run.info["own_answers"], "test": scores},
                 f"{run.task.ARCHITECTURE} with {len(run.task.labels)} labels; exports are judged "
                 f"by {judged}\nWrote {run.path}", flags.json)


def _vocabulary(flags: argparse.Namespace) -> None:
    from . import vocabulary

    config = from_flags(VocabularyConfig, flags)
    texts = vocabulary.write(config)
    command.show({"vocabulary": str(config.out), "pieces": config.size, "texts": texts},
                 f"{config.size} pieces of {texts} texts\nWrote {config.out}", flags.json)


def _trim(flags: argparse.Namespace) -> None:
    import_tensorflow()
    from .trimming import trim

    run = trim(flags.run, from_flags(TrimConfig, flags))
    report, metric = run.info["trimmed"], run.task.METRIC
    before, after = report[metric]
    command.show({"run": str(run.path), **report},
                 f"Kept {report['pieces']:,} of {report['of']:,} pieces. {report['otherwise']} of "
                 f"{report['rows']} test texts are cut into other pieces: {metric} {before:.4f} -> "
                 f"{after:.4f}\nWrote {run.path}", flags.json)


def _predict(flags: argparse.Namespace) -> None:
    if flags.texts and flags.file:
        raise UserError(f"Texts come from the command line ({len(flags.texts)} given) or from "
                        f"--file {flags.file}, not from both.")
    predictor = _open(flags)
    for texts in _chunks(_texts(flags), 256):
        for text, answer in zip(texts, predictor(texts), strict=True):
            if flags.json:
                print(json.dumps({"text": text, **answer}, ensure_ascii=False))
            else:
                print(f"{_shown(answer)}\t{text}")


def _shown(answer: dict[str, Any]) -> str:
    if "spans" in answer:
        return "; ".join(f"{s['label']} {s['text']!r} {s['score']:.4f}"
                         for s in answer["spans"]) or "-"
    if "masks" in answer:
        return "; ".join(f"{m['token']} {m['score']:.4f}" for m in answer["masks"]) or "-"
    if "labels" in answer:
        return ", ".join(f"{name} {answer['scores'][name]:.4f}" for name in answer["labels"]) or "-"
    if "embedding" in answer:
        first = " ".join(f"{value:.4f}" for value in answer["embedding"][:4])
        return f"[{first} ...] {len(answer['embedding'])} numbers"
    if "label" not in answer:
        return f"{answer['score']:.4f}"
    return f"{answer['label'] or '-'}\t{answer['score']:.4f}"


def _texts(flags: argparse.Namespace) -> Iterable[str]:
    if flags.texts:
        return flags.texts
    if flags.file is None:
        return (line.rstrip("\r\n") for line in sys.stdin)
    try:
        lines = flags.file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"--file {flags.file} does not exist.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--file {flags.file} is not UTF-8 at byte {error.start}. "
                        "Save it as UTF-8.") from None
    return lines


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Answer a pipe as it comes instead of at its end."""
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _backbones(flags: argparse.Namespace) -> None:
    from .config import BACKBONES

    width = max(map(len, BACKBONES))
    command.show(BACKBONES, "\n".join(f"{k:{width}}  {v}" for k, v in BACKBONES.items()),
                 flags.json)


def _datasets(flags: argparse.Namespace) -> None:
    from . import sources

    schemes: dict[Any, list[str]] = {}
    for scheme, reader in sources.schemes().items():
        schemes.setdefault(reader, []).append(f"{scheme}:")
    lines, content = [], {}
    for reader, names in schemes.items():
        about = (reader.__doc__ or "").strip().splitlines()[0]
        lines += [" ".join(names), f"    {about}"]
        lines += [f"    ?{name}=  {text}" for name, text in reader.OPTIONS.items()]
        content.update({name: {"about": about, "options": reader.OPTIONS} for name in names})
    command.show(content, "\n".join(lines), flags.json)
