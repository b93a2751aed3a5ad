"""TensorFlow Datasets: `tfds:glue/sst2?text=sentence`, or what was prepared in `data_dir`."""

import logging
from collections.abc import Iterator
from typing import Any

from ..errors import UserError
from ..sources import Record, Split
from . import _files

SCHEMES: dict[str, dict[str, str]] = {"tfds": {}}
FIELDS = ("text", "text_b", "label", "labels", "score", "tokens", "tags")
OPTIONS = {
    "split": "which split, e.g. train or train[:10%]; default: train, and the others for their use",
    "data_dir": "where data sets are prepared; default: $TFDS_DATA_DIR, else ~/tensorflow_datasets",
    **{field: f"feature of the {field}; default: {field}, if there" for field in FIELDS},
}
HIDDEN = -1  # what a ClassLabel holds where the true label is kept secret, as in GLUE's test sets
log = logging.getLogger(__name__)


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield the records of one split; labels by name, and no label where it is hidden (-1)."""
    import tensorflow_datasets as tfds

    builder = _builder(location, options)
    split = options.get("split", "train")
    chosen = _features(location, list(builder.info.features), options)
    try:
        # Read once: TFDS would keep small data sets in memory for a second pass.
        dataset = builder.as_dataset(split=split, shuffle_files=False,
                                     read_config=tfds.ReadConfig(try_autocache=False))
    except ValueError as error:
        raise UserError(f"tfds:{location} has no split {split!r}: {_one_line(error)} Its splits: "
                        f"{', '.join(builder.info.splits)}.") from None
    empty = 0
    for example in tfds.as_numpy(dataset):
        record = {field: _plain(builder.info.features[name], example[name])
                  for field, name in chosen.items()}
        if not all(record[field] for field in ("text", "tokens") if field in record):
            empty += 1
            continue
        if location.startswith("glue/") and record.get("score") == HIDDEN:
            del record["score"]
        if "label" in record:
            label = record.pop("label")
            record |= {} if label is None else {"label": _name(label)}
        for field in {"labels", "tags"} & record.keys():
            record[field] = [_name(one) for one in record[field]]
        yield record
    if empty:
        log.warning("tfds:%s, split %s: %d examples with an empty text were left out.", location,
                    split, empty)


def splits(location: str, options: dict[str, str]) -> dict[Split, tuple[str, dict[str, str]]]:
    """Name the splits that the data set has; if one was asked for, it alone, as train."""
    if "split" in options:
        return {"train": (location, {})}
    found: dict[Split, tuple[str, dict[str, str]]] = {}
    names = list(_builder(location, options).info.splits)
    for name in names:
        split = _files.SPLIT_WORDS.get(name)
        if split is not None:
            found.setdefault(split, (location, {"split": name}))
    if "train" not in found:
        raise UserError(f"tfds:{location} has no train split; its splits: {', '.join(names)}. "
                        "Name one: split=NAME.")
    return found


def _builder(location: str, options: dict[str, str]) -> Any:
    """Find the data set, and download it if it is not prepared yet."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"tfds:{location} needs the package {error.name or 'tensorflow-datasets'}. "
                        "Run `pip install tensorflow-datasets`.") from None
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    try:
        builder = tfds.builder(location, data_dir=options.get("data_dir"))
    except tfds.core.DatasetNotFoundError:
        where = options.get("data_dir", "TFDS's data folder (TFDS_DATA_DIR, or option data_dir)")
        raise UserError(f"Unknown data set {location!r}: TFDS has none of that name, and none is "
                        f"prepared in {where}. For the names see "
                        "https://www.tensorflow.org/datasets/catalog/overview.") from None
    except ValueError as error:
        raise UserError(f"tfds:{location}: {_one_line(error)} Write tfds:NAME or "
                        "tfds:NAME/CONFIG.") from None
    try:
        builder.download_and_prepare()
    except ImportError as error:
        raise UserError(f"tfds:{location} needs the package {error.name}, which is not installed. "
                        f"Run `pip install {error.name}`.") from None
    # A missing network is an OSError; data that only a person may fetch, an AssertionError.
    except (OSError, AssertionError, tfds.download.DownloadError,
            NonMatchingChecksumError) as error:
        raise UserError(f"tfds:{location} cannot be prepared: {_one_line(error)} Check the "
                        "network, which is needed once, or point TFDS_DATA_DIR (or data_dir=) to "
                        "a folder where it is prepared.") from None
    return builder


def _features(location: str, there: list[str], options: dict[str, str]) -> dict[str, str]:
    """Choose the feature of each field: the one asked for, else one of the field's name."""
    chosen = {}
    for field in FIELDS:
        name = options.get(field, field if field in there else "")
        if name and name not in there:
            raise UserError(f"tfds:{location} has no feature {name!r} for {field}. Its features: "
                            f"{', '.join(there)}. Choose one of them with {field}=FEATURE.")
        if name:
            chosen[field] = name
    if not {"text", "tokens"} & chosen.keys():
        raise UserError(f"tfds:{location} has no feature 'text' or 'tokens'. Its features: "
                        f"{', '.join(there)}. Choose one: text=FEATURE.")
    return chosen


def _plain(feature: Any, value: Any) -> Any:
    """Turn TFDS's arrays, bytes and class numbers into lists, strings and class names."""
    # Lists first: TFDS's Sequence passes on the attributes of what it holds, int2str too.
    if getattr(value, "ndim", 0):
        inner = getattr(feature, "feature", None)
        return [_plain(inner, one) for one in value]
    if hasattr(feature, "int2str"):
        return None if int(value) == HIDDEN else feature.int2str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if hasattr(value, "item") else value


def _name(label: Any) -> str:
    """Name a label without a class name as a table does: 1, true."""
    return label.strip() if isinstance(label, str) else str(label).lower()


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())[:300] or type(error).__name__
    return line if line.endswith(".") else line + "."
