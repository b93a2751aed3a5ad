"""What an artifact takes and gives: the SavedModel's signatures, and the bounds of its tables."""

import json
from dataclasses import dataclass

import numpy as np

from tf_pipeline.errors import UserError
from tf_pipeline.predictor import Predictor
from tf_pipeline.text import INPUTS, Arrays

from . import tf_serving
from .tf_serving import Signature, Tensor


def signatures_of(predictor: Predictor) -> dict[str, Signature]:
    """Give the SavedModel's signatures, or for an artifact without one those it would have."""
    manifest = predictor.manifest
    if manifest is None:
        return {}
    if manifest.signatures:
        return {name: Signature.from_manifest(s) for name, s in manifest.signatures.items()}
    rows = {"probabilities": Tensor("DT_FLOAT", (-1, len(manifest.labels))),
            "logits": Tensor("DT_FLOAT", (-1, len(manifest.labels))),
            "label": Tensor("DT_STRING", (-1,))}
    default = "text" if "text" in predictor.task.OUTPUTS else "tokens"
    inputs = {"text": {field: Tensor("DT_STRING", (-1,), f"serving_default_{field}:0")
                       for field in predictor.task.text_fields},
              "tokens": {n: Tensor("DT_INT32", (-1, -1), f"tokens_{n}:0") for n in INPUTS}}
    return {name: Signature(inputs[key], {n: rows.get(n, Tensor("DT_FLOAT", None))
                                          for n in predictor.task.OUTPUTS[key]})
            for name, key in ((tf_serving.DEFAULT_SIGNATURE, default), ("tokens", "tokens"))}


def takes_text(predictor: Predictor) -> bool:
    """Whether `:predict` takes texts; a SavedModel of core operations alone takes token ids."""
    default = signatures_of(predictor).get(tf_serving.DEFAULT_SIGNATURE)
    return default is not None and set(default.inputs) != set(INPUTS)


@dataclass(frozen=True)
class Bounds:
    """What a graph's lookup tables hold; a number beyond them gives garbage or a crash."""

    length: int
    largest: dict[str, int]  # input name -> largest value


def bounds_of(predictor: Predictor) -> Bounds:
    """Read the architecture's bounds from config.json, or what the manifest implies of them."""
    path = predictor.folder / "config.json"
    config = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return Bounds(config.get("max_position_embeddings", predictor.encoder.max_len), {
        "input_ids": config.get("vocab_size", len(predictor.encoder.vocabulary)) - 1,
        "attention_mask": 1,
        "token_type_ids": config.get("type_vocab_size", 2) - 1})


def check_tokens(arrays: Arrays, bounds: Bounds) -> None:
    """Refuse token ids that the graph cannot look up."""
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) > 1:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UserError(f"The inputs differ in shape: {shown}. Expecting one shape for all.")
    length = arrays["input_ids"].shape[1]
    if not 1 <= length <= bounds.length:
        raise UserError(f"The rows have {length} tokens; allowed are 1 to {bounds.length}.")
    for name, values in arrays.items():
        wrong = np.argwhere((values < 0) | (values > bounds.largest[name]))
        if len(wrong):
            row, column = map(int, wrong[0])
            raise UserError(f"{name} of row {row} holds {values[row, column]} at position {column};"
                            f" allowed are 0 to {bounds.largest[name]}.")
