"""TensorProto in and out: every way in which a client may write a tensor, checked as it is read."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_pipeline.errors import UserError

from ..options import Limits
from ..tf_serving import Tensor
from .messages import DataType

# Where the values of a type stand if not in tensor_content.
FIELDS = {"DT_STRING": "string_val", "DT_INT32": "int_val", "DT_INT64": "int64_val",
          "DT_FLOAT": "float_val", "DT_DOUBLE": "double_val", "DT_BOOL": "bool_val"}
CONTENT = {"DT_INT32": "<i4", "DT_INT64": "<i8"}  # little-endian on every machine


def type_name(number: int) -> str:
    """Give TensorFlow's name of a type, e.g. DT_INT32; the number where it is a rare one."""
    found = DataType.values_by_number.get(number)
    return found.name if found else f"the type number {number}"


def decode(tensor: Any, takes: Tensor, where: str, limits: Limits) -> list[Any]:
    """Give a TensorProto's values as nested lists, rows first; UserError if `takes` is another.

    Left-out values are filled in as TensorFlow does, but to no more than a body may have: a
    request of a few bytes must not become a tensor of gigabytes.
    """
    if type_name(tensor.dtype) != takes.dtype:
        raise UserError(f"{where} is {type_name(tensor.dtype)}; expected {takes.dtype}. Cast it "
                        "before it is sent.")
    shape = _shape(tensor.tensor_shape, takes, where)
    width = np.dtype(CONTENT.get(takes.dtype, "S1")).itemsize
    if shape[0] > limits.max_texts:
        raise UserError(f"{where} has the shape {shape}, which is {shape[0]} rows; allowed are "
                        f"{limits.max_texts}. Send several requests, or raise --max-texts of the "
                        "server.")
    if (count := math.prod(shape)) * width > limits.max_body_bytes:
        raise UserError(f"{where} has the shape {shape}, which is {count:,} values; a request may "
                        f"have {limits.max_body_bytes:,} bytes. Send fewer rows at once, or raise "
                        "--max-body-bytes of the server.")
    others = [field.name for field, _ in tensor.ListFields()
              if field.name.endswith("_val") and field.name != FIELDS[takes.dtype]]
    if others:
        raise UserError(f"{where} is {takes.dtype} and has its values in {others[0]}; expected "
                        f"{FIELDS[takes.dtype]} or tensor_content.")
    values = _values(tensor, takes.dtype, count, where)
    if len(values) > count or (tensor.tensor_content and len(values) != count):
        raise UserError(f"{where} holds {len(values)} values, and its shape {shape} needs "
                        f"{count}.")
    # None at all stands for zeros or empty texts, and the last one is repeated.
    last = values[-1] if len(values) else "" if takes.dtype == "DT_STRING" else 0
    left_out = np.full(count - len(values), last, values.dtype)
    return np.concatenate([values, left_out]).reshape(shape).tolist()


def _shape(proto: Any, takes: Tensor, where: str) -> list[int]:
    """Read a shape that fits the signature's and holds at least one value."""
    expected = "any" if takes.shape is None else _shown(takes.shape)
    if proto.unknown_rank:
        raise UserError(f"{where} has a shape of unknown rank; expected {expected}.")
    shape = [dim.size for dim in proto.dim]
    fits = bool(shape) if takes.shape is None else len(shape) == len(takes.shape) and all(
        size in (-1, given) for size, given in zip(takes.shape, shape, strict=True))
    if not fits or any(size < 0 for size in shape):
        raise UserError(f"{where} has the shape {shape}; expected {expected}.")
    if 0 in shape:
        raise UserError(f"{where} has the shape {shape}, and so no value; at least 1 is needed.")
    return shape


def _shown(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("any" if size == -1 else str(size) for size in shape) + "]"


def _values(tensor: Any, dtype: str, count: int, where: str) -> np.ndarray:
    """Read the values that are there: (values,), texts as objects."""
    content = tensor.tensor_content
    if dtype == "DT_STRING":
        parts = _split(content, count, where) if content else tensor.string_val
        return np.array([_text(part, f"{where}[{i}]") for i, part in enumerate(parts)], object)
    numbers = np.dtype(CONTENT[dtype])
    if not content:
        return np.array(getattr(tensor, FIELDS[dtype]), numbers)
    if len(content) % numbers.itemsize:
        raise UserError(f"{where} has {len(content)} bytes in tensor_content, and a value of "
                        f"{dtype} has {numbers.itemsize}.")
    return np.frombuffer(content, numbers)


def _split(content: bytes, count: int, where: str) -> Iterator[bytes]:
    """Read strings as C++ packs them: the lengths of all, as varints, and then their bytes."""
    lengths, at = [], 0
    for _ in range(count):
        length = shift = 0
        while at < len(content) and shift < 35:
            byte = content[at]
            length, shift, at = length | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                lengths.append(length)
                break
    if len(lengths) != count or at + sum(lengths) != len(content):
        raise UserError(f"{where} has {len(content)} bytes in tensor_content, which are not "
                        f"{count} packed strings. Send them in string_val.")
    for length in lengths:
        yield content[at:at + length]
        at += length


def _text(value: bytes, where: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8: byte {value[error.start]:#04x} at offset "
                        f"{error.start}. Send texts in UTF-8.") from None


def encode(values: Any, dtype: str, tensor: Any) -> None:
    """Write numbers or strings, rows first, into a TensorProto in the fields that TF Serving uses.

    Clients in some languages read these fields alone, and not tensor_content.
    """
    array = np.asarray(values, object if dtype == "DT_STRING" else None)
    tensor.dtype = DataType.values_by_name[dtype].number
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    flat = array.ravel().tolist()
    if dtype == "DT_STRING":
        flat = [value.encode("utf-8") if isinstance(value, str) else value for value in flat]
    getattr(tensor, FIELDS[dtype]).extend(flat)


def describe(tensor: Tensor, info: Any) -> None:
    """Write what a signature says of a tensor into a TensorInfo."""
    info.name, info.dtype = tensor.name, DataType.values_by_name[tensor.dtype].number
    info.tensor_shape.unknown_rank = tensor.shape is None
    for size in tensor.shape or ():
        info.tensor_shape.dim.add(size=size)
