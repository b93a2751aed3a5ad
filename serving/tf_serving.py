"""The wire format of TF Serving's REST API: plain data in, plain data out, no HTTP.

Bodies and errors are those of `tensorflow_model_server`, with one deliberate difference: what it
ignores (unknown keys, a key given twice, an empty list) is refused here with a sentence.
"""

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tf_pipeline.errors import UserError

from .bodies import check_keys, show

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
# How the two other verbs call the signatures that they want; the exported graphs have none.
OTHER_VERBS = {"classify": "classification", "regress": "regression"}
EXPECTED = {"DT_STRING": "a string", "DT_INT32": "a 32-bit integer", "DT_INT64": "a 64-bit integer"}
BITS = {"DT_INT32": 31, "DT_INT64": 63}


@dataclass(frozen=True)
class Tensor:
    """One input or output of a signature. Shape None: the rank is not known."""

    dtype: str  # TensorFlow's name, e.g. DT_INT32
    shape: tuple[int, ...] | None
    name: str = ""  # in the graph, e.g. serving_default_text:0


@dataclass(frozen=True)
class Signature:
    """What a SavedModel's signature takes and gives."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    method: str = PREDICT_METHOD

    @classmethod
    def from_manifest(cls, listed: Mapping[str, Any]) -> "Signature":
        """Read one entry of `Manifest.signatures`."""
        def tensors(group: str) -> dict[str, Tensor]:
            return {name: Tensor(t["dtype"], None if t.get("shape") is None else tuple(t["shape"]),
                                 t.get("name", ""))
                    for name, t in listed[group].items()}

        return cls(tensors("inputs"), tensors("outputs"),
                   listed.get("method_name", PREDICT_METHOD))


@dataclass(frozen=True)
class PredictRequest:
    """A body of `:predict`, checked against its signature."""

    signature: str
    by_row: bool  # `instances` (answered with `predictions`), not `inputs` (with `outputs`)
    inputs: dict[str, list[Any]]  # nested lists of the rank and type that the signature names


def read_predict(document: Mapping[str, Any],
                 signatures: Mapping[str, Signature]) -> PredictRequest:
    """Check a body of `:predict`; UserError says which value is wrong and what is expected."""
    check_keys(document, ("signature_name", "instances", "inputs"))
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise UserError(f"'signature_name' is {show(name)}; it must be a string value.")
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise UserError(f"Serving signature name: {show(name)} not found in signature def. "
                        f"Known: {', '.join(signatures)}.")
    given = [key for key in ("instances", "inputs") if key in document]
    if len(given) != 1:
        raise UserError("Missing 'inputs' or 'instances' key" if not given else
                        "Both 'instances' and 'inputs' are given. Not formatted correctly: "
                        "expecting only one of 'inputs' or 'instances' keys to exist.")
    takes = signatures[name].inputs
    by_row = given == ["instances"]
    columns = (_rows if by_row else _columns)(document[given[0]], takes)
    return PredictRequest(name, by_row, columns)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _rows(rows: Any, takes: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Turn `instances` into one list for each input."""
    if not isinstance(rows, list):
        raise UserError(f"'instances' is {show(rows)}; expecting it to be a list/array.")
    if not rows:
        raise UserError("No values in 'instances' array: it has 0 rows, and at least 1 is needed.")
    columns: dict[str, list[Any]] = {name: [] for name in takes}
    named = isinstance(rows[0], dict) and not _is_b64(rows[0])
    if not named and len(takes) > 1:
        raise UserError(f"instances[0] is {show(rows[0])}; expecting objects with the keys "
                        f"{', '.join(takes)}, as the signature has more than one input.")
    for i, row in enumerate(rows):
        where = f"instances[{i}]"
        if named != (isinstance(row, dict) and not _is_b64(row)):
            raise UserError(f"{where} is {show(row)}, and instances[0] is {show(rows[0])}. "
                            "All rows must be objects, or all plain values.")
        if named and set(row) != set(takes):
            raise UserError(f"{where} is {show(row)}; its keys must be equal to: "
                            f"{', '.join(takes)}.")
        for name, tensor in takes.items():
            value = row[name] if named else row
            columns[name].append(_read(value, len(tensor.shape or (1,)) - 1, tensor.dtype,
                                       f"{where}.{name}" if named else where))
    for name, values in columns.items():
        _same_lengths(values, f"'{name}' of instances")
    return columns


def _columns(value: Any, takes: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Turn `inputs` into one list for each input."""
    if not isinstance(value, dict) or _is_b64(value):
        if len(takes) > 1:
            raise UserError(f"'inputs' is {show(value)}; expecting an object with the keys "
                            f"{', '.join(takes)}, as the signature has more than one input.")
        value, prefix = {name: value for name in takes}, "inputs"
    else:
        prefix = ""
    missing = [name for name in takes if name not in value]
    if missing:
        raise UserError(f"Missing named input: {', '.join(missing)} in 'inputs' object, which is "
                        f"{show(value)}.")
    check_keys(value, tuple(takes))
    columns = {}
    for name, tensor in takes.items():
        where = prefix or f"inputs.{name}"
        columns[name] = _filled(_read(value[name], len(tensor.shape or (1,)), tensor.dtype, where),
                                where)
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"The inputs have different numbers of rows: {shown}.")
    return columns


def read_texts(value: Any, where: str, each: int = 1) -> list[list[str]]:
    """Check an array of at least one string, or of arrays of `each`; gives the latter."""
    if each == 1 or not isinstance(value, list):
        return [[text] for text in _filled(_read(value, 1, "DT_STRING", where), where)]
    rows = [_read(row, 1, "DT_STRING", f"{where}[{i}]")
            for i, row in enumerate(_filled(value, where))]
    if wrong := [i for i, row in enumerate(rows) if len(row) != each]:
        raise UserError(f"{where}[{wrong[0]}] is an array of {len(rows[wrong[0]])}; expected "
                        f"{each} strings.")
    return rows


def read_text(value: Any, where: str) -> str:
    """Check a string, or the `b64` form of one."""
    return _scalar(value, "DT_STRING", where)


def _filled(values: list[Any], where: str) -> list[Any]:
    if not values:
        raise UserError(f"{where} is an array of 0; at least 1 value is needed.")
    return values


def _read(value: Any, rank: int, dtype: str, where: str) -> Any:
    """Check a value of a known rank: nested lists as they are, with their `b64` decoded."""
    if rank == 0:
        return _scalar(value, dtype, where)
    if not isinstance(value, list):
        expected = "an array of " * rank + EXPECTED[dtype].partition(" ")[2] + "s"
        raise UserError(f"{where} is {show(value)}; expected {expected}.")
    rows = [_read(item, rank - 1, dtype, f"{where}[{i}]") for i, item in enumerate(value)]
    if rank > 1:
        _same_lengths(rows, where)
    return rows


def _scalar(value: Any, dtype: str, where: str) -> Any:
    if dtype == "DT_STRING":
        if _is_b64(value):
            return _decode_b64(value["b64"], where)
        if isinstance(value, str):
            return _whole(value, where)
    elif (isinstance(value, int) and not isinstance(value, bool)
          and -(1 << BITS[dtype]) <= value < 1 << BITS[dtype]):
        return value
    raise UserError(f"{where} is {show(value)}; expected {EXPECTED[dtype]}.")


def _whole(text: str, where: str) -> str:
    """Refuse half a surrogate pair, which JSON's escapes can write and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a surrogate pair, {show(text[error.start])}, at "
                        f"character {error.start}. Send whole characters.") from None
    return text


def _decode_b64(text: str, where: str) -> str:
    try:
        padding = "=" * (-len(text) % 4)
        return base64.b64decode(text + padding, validate=True).decode("utf-8")
    except ValueError:
        raise UserError(f'{where} is {{"b64": {show(text)}}}; expected the base64 form of a text '
                        "in UTF-8.") from None


def _same_lengths(rows: list[Any], where: str) -> None:
    if not isinstance(rows[0] if rows else None, list):
        return
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise UserError(f"{where}: row {i} has {len(row)} values, and row 0 has "
                            f"{len(rows[0])}. Pad all rows to one length (attention_mask 0).")


def write_predict(outputs: Mapping[str, list[Any]], by_row: bool) -> dict[str, Any]:
    """Lay outputs (one list for each, of one value a row) out as TF Serving does.

    A single output stands without its name, as there.
    """
    if not by_row:
        whole = outputs if len(outputs) > 1 else next(iter(outputs.values()))
        return {"outputs": round_floats(whole)}
    if len(outputs) == 1:
        return {"predictions": round_floats(next(iter(outputs.values())))}
    rows = zip(*outputs.values(), strict=True)
    return {"predictions": [round_floats(dict(zip(outputs, row, strict=True))) for row in rows]}


def round_floats(value: Any) -> Any:
    """Drop the noise that float32 gets as a double: 0.1, not 0.10000000149011612."""
    if isinstance(value, float):
        # TF Serving's rule: 6 digits if they give the same float32 again, and 9 if not.
        short = float(f"{value:.6g}")
        return short if _float32(short) == value else float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {key: round_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item) for item in value]
    return value


def _float32(value: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:  # the largest float32 rounds up to more than a float32 holds
        return float("inf")


def not_found(name: str, version: int | None) -> str:
    """Say that no such model is served."""
    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return f"Servable not found for request: {asked}"


def no_status(name: str, version: int | None) -> str:
    """Say that no such model's status is known."""
    what = "any versions" if version is None else f"version {version}"
    return f"Could not find {what} of model {name}"


def not_of_kind(verb: str) -> str:
    """Say that no signature is made for `:classify` or `:regress`."""
    return (f"Expected {OTHER_VERBS[verb]} signature method_name to be tensorflow/serving/{verb}. "
            f"Was: {PREDICT_METHOD}. Use :predict.")


def status(versions: Iterable[tuple[int, str, str]]) -> dict[str, Any]:
    """Give the body of `GET /v1/models/NAME`: versions with their state and what went wrong."""
    return {"model_version_status": [
        {"version": str(number), "state": state,
         "status": {"error_code": "UNKNOWN" if error else "OK", "error_message": error}}
        for number, state, error in versions]}


def metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> dict[str, Any]:
    """Give the body of `GET /v1/models/NAME/metadata`."""
    listed = {key: {"inputs": {n: _tensor_info(t) for n, t in s.inputs.items()},
                    "outputs": {n: _tensor_info(t) for n, t in s.outputs.items()},
                    "method_name": s.method, "defaults": {}}
              for key, s in signatures.items()}
    return {"model_spec": {"name": name, "signature_name": "", "version": str(version)},
            "metadata": {"signature_def": {"signature_def": listed}}}


def _tensor_info(tensor: Tensor) -> dict[str, Any]:
    # Protobuf writes 64-bit integers as strings.
    dims = [{"size": str(size), "name": ""} for size in tensor.shape or ()]
    return {"dtype": tensor.dtype, "name": tensor.name,
            "tensor_shape": {"dim": dims, "unknown_rank": tensor.shape is None}}
