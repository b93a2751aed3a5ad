"""Tables: `csv:reviews.csv?text=sentence&label=polarity`, `tsv:...`, `jsonl:...`, or a folder.

csv follows the csv module's quoting. tsv is GLUE's form, where a quote is a character. jsonl has
one object a line. A folder holds train, validation (dev, valid) and test files.
"""

import ast
import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

from ..errors import UserError
from ..sources import Record, Row, Split
from . import _files

SCHEMES = {"csv": {"format": "csv"}, "tsv": {"format": "tsv"}, "jsonl": {"format": "jsonl"}}
OPTIONS = {
    "text": "column of the text; default: text",
    "text_b": "column of a pair's second text; default: text_b, if there",
    "negative": "column of a text that resembles text_b and does not belong to text; default: "
                "negative, if there",
    "label": "column of the label; default: label, if there; empty for none",
    "labels": "column of several labels (a list in brackets, or with | or ; or , between); "
              "default: labels, if there",
    "score": "column of a number to predict; default: score, if there",
    "header": "column names of a csv or tsv file whose first row is data, e.g. text,labels,id",
    "label_names": "file with a label's name a line: line 0 names label 0, and so on",
}
FIELDS = ("text", "text_b", "negative", "label", "labels", "score")
# Where a row starts, as an editor counts lines; column -> value, or why there is none.
Values = tuple[int, dict[str, object]]
Cells = tuple[int, list[str] | str]
SHOWN_ROWS = 5
SHOWN_CHARACTERS = 60
HEAD_ROWS = 100  # whose columns are those of a file that is read row by row
QUOTING = ('A text with a comma, a quote or a line break stands in quotes ("), with its own quotes '
           "doubled.")


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield a record for each row; of a folder, from its train file.

    Rows without a text or a label are counted, and refused together after the last row.
    """
    path = _path(location, options)["train"]
    given = _given_header(path, options)
    rows = (_json_rows(path) if options["format"] == "jsonl" else
            {"csv": _csv_rows, "tsv": _tsv_rows}[options["format"]](path, given))
    named = _label_names(options)
    first = next(rows)
    columns = _columns(path, list(first[1]), options)
    missing: dict[str, list[int]] = {field: [] for field in columns}
    for row, values in chain([first], rows):
        record: Record = {}
        for field, column in columns.items():
            try:
                value = CONVERT[field](values.get(column))
                if isinstance(value, list):
                    value = [named(label) for label in value]
                elif field == "label" and isinstance(value, str):
                    value = named(value)
            except ValueError as error:
                raise UserError(f"{path}, row {row}, column {column!r}: {error}") from None
            if value is None:
                missing[field].append(row)
            record[field] = value
        if None not in record.values():
            yield record
    lacking = [f"no {field} (column {columns[field]!r}): {len(found)} (row "
               + ", ".join(map(str, found[:SHOWN_ROWS])) + ", ..." * (len(found) > SHOWN_ROWS) + ")"
               for field, found in missing.items() if found]
    if lacking:
        raise UserError(f"{path} has rows with {'; '.join(lacking)}. Fill them in or remove them.")


def rows(location: str, options: dict[str, str], fields: Sequence[str],
         kept: Sequence[str]) -> Iterator[Row]:
    """Yield every row but blank ones, of a file alone: see `sources.rows`.

    A csv or tsv row with too few columns is a fault too: it was probably cut off.
    """
    path = _files.existing(location)
    with closing(_files.Lines(path)) as lines:
        named = (_objects if options["format"] == "jsonl" else _named_cells)(lines, options)
        found = ((number, lines.end, values) for number, values in named)
        # Objects may leave columns out, so several say what there is.
        head = list(islice(found, HEAD_ROWS))
        there = list(dict.fromkeys(name for *_, values in head if isinstance(values, dict)
                                   for name in values))
        columns = _asked(path, there, options, fields, kept) if there else {}
        for number, end, values in chain(head, found):
            if isinstance(values, str):
                yield Row(number, end, {}, {}, values)
                continue
            columns = columns or _asked(path, list(values), options, fields, kept)
            yield Row(number, end, {field: values.get(columns[field]) for field in fields},
                      {name: values.get(name) for name in kept})


def splits(location: str, options: dict[str, str]) -> dict[Split, tuple[str, dict[str, str]]]:
    """Name a folder's split files."""
    return {split: (str(path), {}) for split, path in _path(location, options).items()}


def _path(location: str, options: dict[str, str]) -> dict[Split, Path]:
    return _files.split_files(location, ("." + options["format"],))


def _given_header(path: Path, options: dict[str, str]) -> list[str]:
    given = [name.strip() for name in options.get("header", "").split(",") if name.strip()]
    if given and options["format"] == "jsonl":
        raise UserError(f"Option header is {options['header']!r}, and the rows of {path} name "
                        "their own columns. Leave it out.")
    return given


def _asked(path: Path, there: list[str], options: dict[str, str], fields: Sequence[str],
           kept: Sequence[str]) -> dict[str, str]:
    """Choose the column of each of `fields`; UserError where one of them or of `kept` is not."""
    columns = {**{field: field for field in fields}, **_columns(path, there, options)}
    wanted = {**{columns[field]: f"{field}=COLUMN" for field in fields},
              **{name: "--keep" for name in kept}}
    if lacking := next((name for name in wanted if name not in there), None):
        names = ", ".join(name[:SHOWN_CHARACTERS] for name in there)
        raise UserError(f"{path} has no column {lacking!r}. Its columns: {names}. Choose one of "
                        f"them with {wanted[lacking]}.")
    return columns


def _columns(path: Path, there: list[str], options: dict[str, str]) -> dict[str, str]:
    """Choose the column of each field: the one asked for, else one of the field's name."""
    columns = {}
    # In a file without a header the names are a row's values, and can be long.
    names = ", ".join(name[:SHOWN_CHARACTERS] for name in there)
    for field in FIELDS:
        column = options.get(field, field if field in there else "")
        if column and column not in there:
            raise UserError(f"{path} has no column {column!r} for {field}. Its columns: {names}. "
                            f"Choose one of them with {field}=COLUMN.")
        if column:
            columns[field] = column
    if "text" not in columns:
        raise UserError(f"{path} has no column 'text'. Its columns: {names}. "
                        f"Choose one of them: {options['format']}:{path}?text=COLUMN.")
    return columns


def _label_names(options: dict[str, str]) -> Callable[[str], str]:
    """Give what makes a label's name of its number; without `label_names` labels stay."""
    if "label_names" not in options:
        return lambda label: label
    path = _files.existing(options["label_names"])
    names = [line.strip() for line in _files.text_lines(path)]

    def name(label: str) -> str:
        if not label.isdecimal() or int(label) >= len(names):
            raise ValueError(f"the label is {label!r}; {path} names labels 0 to "
                             f"{len(names) - 1}. Correct one of the two.")
        return names[int(label)]

    return name


def _csv_rows(path: Path, header: list[str]) -> Iterator[Values]:
    # strict: a quote left open would otherwise swallow all rows after it in silence.
    reader = csv.reader(_files.text_lines(path), strict=True)
    start = 1
    rows = 0
    try:
        for values in reader:
            if header and values:
                if len(values) > len(header):
                    raise UserError(_width(path, start, values, header) + " " + QUOTING)
                yield start, dict.fromkeys(header) | dict(zip(header, values, strict=False))
                rows += 1
            elif "".join(values).strip():
                header = _header(path, values)
            # The reader knows a row's last line; a text in quotes can span several.
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, row {start}: not CSV ({error}). " + QUOTING) from None
    _refuse_header_only(path, header, rows)


def _tsv_rows(path: Path, header: list[str]) -> Iterator[Values]:
    rows = 0
    for row, line in enumerate(_files.text_lines(path), 1):
        line = line.rstrip("\r\n")
        values = line.split("\t")
        if not header and line.strip():
            header = _header(path, values)
        elif header and line:
            if len(values) != len(header):
                raise UserError(_width(path, row, values, header) + " In a tsv file each tab "
                                "starts a new column, also inside quotes.")
            yield row, dict(zip(header, values, strict=True))
            rows += 1
    _refuse_header_only(path, header, rows)


def _named_cells(lines: _files.Lines, options: dict[str, str]
                 ) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Name the cells of a csv or tsv file's rows."""
    split = {"csv": _csv_cells, "tsv": _tsv_cells}[options["format"]]
    header = _given_header(lines.path, options)
    for number, values in split(lines):
        if isinstance(values, str):
            if not header:
                raise UserError(f"{lines.path}, row {number}, the header: {values}")
            yield number, values
        elif not header:
            if "".join(values).strip():
                header = _header(lines.path, values)
        elif len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
        elif values:
            yield number, _count(values, header)


def _csv_cells(lines: _files.Lines) -> Iterator[Cells]:
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin()
        number = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote left open has taken good rows along: only its own line is given up.
            lines.give_up_first()
            reader = csv.reader(lines, strict=True)
            yield number, f"not CSV ({error}). {QUOTING}"
        else:
            yield number, lines.damage or values


def _tsv_cells(lines: _files.Lines) -> Iterator[Cells]:
    for line in lines:
        line = line.rstrip("\r\n")
        yield lines.number, lines.damage or (line.split("\t") if line else [])
        lines.begin()


def _objects(lines: _files.Lines, options: dict[str, str]
             ) -> Iterator[tuple[int, dict[str, object] | str]]:
    _given_header(lines.path, options)
    for line in lines:
        if lines.damage:
            yield lines.number, lines.damage
        elif line.strip():
            values: dict[str, object] | str
            try:
                values = _object(line)
            except ValueError as error:
                values = str(error)
            yield lines.number, values
        lines.begin()


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if "" in names:
        raise UserError(f"{path}: column {names.index('') + 1} of the header has no name "
                        f"({', '.join(map(repr, names))}). Name it; pandas writes such a column "
                        "unless told index=False.")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{path}: the header has two columns {double!r} ({', '.join(names)}). "
                        "Give each a name of its own.")
    return names


def _width(path: Path, row: int, values: list[str], header: list[str]) -> str:
    return f"{path}, row {row}: {_count(values, header)}"


def _count(values: list[str], header: list[str]) -> str:
    return (f"{len(values)} columns, but the header has {len(header)} "
            f"({', '.join(header)}).")


def _refuse_header_only(path: Path, header: list[str], rows: int) -> None:
    if not rows:
        raise UserError(f"{path} has a header ({', '.join(header)}) but no rows. Add rows; the "
                        "first line always counts as the header.")


def _json_rows(path: Path) -> Iterator[Values]:
    for row, line in enumerate(_files.text_lines(path), 1):
        if not line.strip():
            continue
        try:
            values = _object(line)
        except ValueError as error:
            raise UserError(f"{path}, row {row}, {error}") from None
        yield row, values


def _object(line: str) -> dict[str, object]:
    """Read a line of JSON; ValueError says why it is no object."""
    shown = line.strip()[:SHOWN_CHARACTERS]
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"character {error.pos + 1}: not JSON ({error.msg}) in {shown!r}. Write "
                         "one object a line.") from None
    except (ValueError, RecursionError) as error:  # more digits, or levels, than Python reads
        raise ValueError(f"{shown!r} cannot be read as JSON: {error}. Write plain values."
                         ) from None
    if not isinstance(values, dict):
        raise ValueError(f"{shown!r} is no JSON object. Write one a line, e.g. "
                         '{"text": "fine", "label": "positive"}.')
    return values


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"the text is {value!r}; it must be a string. Put it in quotes.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the text {value!r} holds half of a surrogate pair, which no tokenizer "
                         "takes. Remove it.") from None
    return value if value.strip() else None


def _label(value: object) -> str | None:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the label is {value!r}; allowed: a string, a number, true or false. "
                         "The option `label=` reads no label.")
    return (value or "").strip() or None


def _labels(value: object) -> list[str] | None:
    """Give several labels, or none: in a cell, an empty one means that no label applies.

    A cell holds a list in brackets, as JSON or as Python prints it, or labels with |, ; or ,
    between them: the first of these that the cell has, so that `a, b|c` are two labels.
    """
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise ValueError(f"labels is {value!r}, which opens like a list and is none. Write "
                             '["joy", "fear"], or joy|fear.') from None
    if isinstance(value, str):
        separator = next((mark for mark in "|;," if mark in value), ",")
        value = [part for part in value.split(separator) if part.strip()]
    if value is not None and not isinstance(value, list):
        raise ValueError(f"labels is {value!r}; allowed: a list, or labels with | between.")
    if value is None:
        return None
    labels = [_label(one) for one in value]
    if None in labels:
        raise ValueError(f"labels is {value!r}, with an empty label in it. Remove it.")
    return list(dict.fromkeys(one for one in labels if one is not None))


def _score(value: object) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        score = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        score = math.nan
    if not math.isfinite(score) or isinstance(value, bool):
        raise ValueError(f"the score is {value!r}; allowed: a finite number such as 2.5.")
    return score


CONVERT = {"text": _text, "text_b": _text, "negative": _text, "label": _label, "labels": _labels,
           "score": _score}
