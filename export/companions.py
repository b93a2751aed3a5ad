"""The small files beside the graphs: tokenizer, config, golden rows, model card."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tf_pipeline.artifact import Manifest
from tf_pipeline.run import Run
from tf_pipeline.text import INPUTS, SPECIAL_TOKENS, TextEncoder

from .twin import Twin

_PIPELINES = {"BertForSequenceClassification": "text-classification",  # names of the hub
              "BertForTokenClassification": "token-classification",
              "BertForMaskedLM": "fill-mask",
              "BertModel": "sentence-similarity"}


def write_tokenizer(folder: Path, encoder: TextEncoder) -> None:
    """Write tokenizer.json, and vocab.txt and tokenizer_config.json for those who read them."""
    (folder / "tokenizer.json").write_text(encoder.to_json(), "utf-8")
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast",
                                "model_max_length": encoder.max_len}
    if encoder.is_wordpiece:
        (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in encoder.vocabulary), "utf-8")
        roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        # A class that builds BERT's own normalizer anew would drop the rules for capitals.
        kind = "PreTrainedTokenizerFast" if encoder.marks_case else "BertTokenizer"
        settings |= {"tokenizer_class": kind, "do_lower_case": encoder.lower_case,
                     "strip_accents": encoder.strip_accents, "tokenize_chinese_chars": True,
                     **dict(zip(roles, SPECIAL_TOKENS, strict=True))}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")


def write_config(folder: Path, run: Run) -> None:
    """Write config.json as transformers, optimum and transformers.js read it, and labels.txt."""
    keys = json.loads(run.config.to_json())
    keys["architectures"] = [run.task.ARCHITECTURE]
    if run.task.labels:
        keys |= {"id2label": {str(i): label for i, label in enumerate(run.task.labels)},
                 "label2id": {label: i for i, label in enumerate(run.task.labels)}}
    if run.task.PROBLEM_TYPE:
        keys["problem_type"] = run.task.PROBLEM_TYPE
    # Ours: what decoding needs beyond the labels, for clients that read only this file.
    decoding = {name: run.info["options"][name] for name in ("thresholds", "abstain_below")
                if run.info["options"].get(name)}
    if decoding:
        keys["decoding"] = decoding
    (folder / "config.json").write_text(json.dumps(keys, indent=2, ensure_ascii=False), "utf-8")
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in run.task.labels), "utf-8")


def write_modules(folder: Path, run: Run) -> None:
    """Write what sentence-transformers reads: tokens, their mean, length 1, as the graph has it."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    files: dict[str, Any] = {
        "modules.json": [{"idx": i, "name": str(i), "path": path,
                          "type": f"sentence_transformers.models.{kind}"}
                         for i, (path, kind) in enumerate(kinds.items())],
        "sentence_bert_config.json": {"max_seq_length": run.max_len, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {}, "default_prompt_name": None,
                                              "similarity_fn_name": "cosine"},
        "1_Pooling/config.json": {"word_embedding_dimension": run.config.hidden_size,
                                  "pooling_mode_cls_token": False,
                                  "pooling_mode_mean_tokens": True}}
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2), "utf-8")


def write_golden(folder: Path, twin: Twin, records: list[dict[str, Any]],
                 lengths: Iterable[int]) -> None:
    """Write golden.npz: records as JSON, their ids, and the twin's outputs.

    `NAME` is an output at the model's own length; `NAME_L64` for graphs that cut texts to 64.
    """
    encoded = twin.task.encode(records, twin.encoder)
    arrays: dict[str, Any] = {
        "records": np.array([json.dumps(r, ensure_ascii=False) for r in records]),
        **encoded.padded(range(len(encoded)), int(encoded.lengths.max())),
        **twin.outputs(records, twin.run.max_len)}
    for length in lengths:
        cut = twin.outputs(records, min(length, twin.run.max_len))
        arrays |= {f"{name}_L{length}": values for name, values in cut.items()}
    np.savez_compressed(folder / "golden.npz", **arrays)


def read_golden(folder: Path,
                length: int | None) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Give the golden records and what a graph of that length must answer, every output."""
    suffix = f"_L{length}" if length else ""
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        records = [json.loads(text) for text in golden["records"]]
        return records, {name.removesuffix(suffix): golden[name] for name in golden.files
                         if name.endswith(suffix) and name not in ("records", *INPUTS)}


def write_card(folder: Path, manifest: Manifest, run: Run, golden: list[dict[str, Any]]) -> None:
    """Write README.md, the model card: what it is, what each file gives, how to use it."""
    real = bool(golden) and set(golden[0]) != set(run.task.text_fields)
    scores = run.metrics["test"]
    texts = (f"golden.npz holds {len(golden)} real rows of the test data, texts included."
             if real else f"golden.npz holds {len(golden)} generated rows and no real text.")
    data = "\n".join(f"- {name}: {part['rows']:,} rows, sha256 `{part['sha256'][:16]}`"
                     for name, part in run.info["data"].items())
    default = manifest.choose()
    more = " ..." if len(manifest.labels) > 30 else ""
    labels = (f" with {len(manifest.labels)} labels: {', '.join(manifest.labels[:30])}{more}"
              if manifest.labels else "")
    (folder / "README.md").write_text(f"""---
library_name: onnx
pipeline_tag: {_PIPELINES[run.task.ARCHITECTURE]}
tags: [bert, onnx, tflite, tensorflow]
---
# {manifest.name}

Task `{manifest.task}`{labels}. Fine-tuned from `{run.info['config']['backbone']}`
on {run.info['created'][:10]}; texts are cut to {manifest.max_len} tokens.

Test {manifest.metric}: **{scores[manifest.metric]:.4f}** on {scores['examples']} rows.

{data}

## Files
Every file was loaded in its own runtime and compared with the trained model on real rows before it
was published; manifest.json holds the details. {texts}

{table(manifest)}

## Use
```
python -m serving FOLDER
```
or in Python:
```python
from tf_pipeline import Predictor
Predictor("FOLDER", runtime="{default.runtime}")(["a text"])
```
""", "utf-8")


def table(manifest: Manifest) -> str:
    """Lay the graphs out: file, bytes, largest difference, agreement, metric, latency."""
    heads = ["file", "bytes", "max difference", "agreement", manifest.metric, "median ms"]
    rows = [[g.path, f"{g.bytes:,}",
             " ".join(f"{v:.1e}" for v in list(g.parity["differences"].values())[:1]) or "-",
             _number(g.parity["agreement"], ".2%"), _number(g.parity["metric_after"], ".4f"),
             _number(g.latency_ms, ".2f")] for g in manifest.graphs]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        return "| " + " | ".join([first, *(c.rjust(w) for c, w in zip(cells[1:], widths[1:],
                                                                      strict=True))]) + " |"

    rule = "| " + " | ".join("-" * w for w in widths) + " |"
    return "\n".join([line(heads), rule, *map(line, rows)])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
