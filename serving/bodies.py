"""JSON bodies: read strictly, and shown in a few words where an error quotes a value."""

import json
from collections.abc import Mapping
from typing import Any

from tf_pipeline.errors import UserError


def parse_json(body: bytes) -> dict[str, Any]:
    """Read a body; anything but one JSON object in UTF-8 is a UserError."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"The body is not UTF-8: byte {body[error.start]:#04x} at offset "
                        f"{error.start}. Send JSON in UTF-8.") from None
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except UserError:
        raise
    except RecursionError:
        raise UserError("The JSON is nested too deep. A request needs no more than 3 levels: "
                        '{"inputs": {"text": ["..."]}}.') from None
    except ValueError as error:  # also a number of more digits than Python reads
        raise UserError(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f'JSON Value: {show(document)} is not an object. Send {{"instances": '
                        '["..."]}.')
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UserError(f"The key {show(key)} stands twice in one JSON object. Give it once.")
        found[key] = value
    return found


def show(value: Any, longest: int = 80) -> str:
    """Write a JSON value for an error message, in a few words if it is large."""
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        keys = ", ".join(show(key, 20) for key in list(value)[:5])
        return f"an object with the keys {keys}" if value else "an empty object"
    text = json.dumps(value, ensure_ascii=False)
    # Half a surrogate pair is a Python string but no UTF-8: an answer could not carry it.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def check_keys(document: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse keys that nobody would read: a misspelt one must not pass silently."""
    unknown = [key for key in document if key not in known]
    if unknown:
        raise UserError(f"Unknown key {', '.join(show(key) for key in unknown[:5])} in the "
                        f"request. Known: {', '.join(known) or 'none'}.")
