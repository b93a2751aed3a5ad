"""A BERT that starts from nothing: `new:vocab=vocab.txt&layers=4&hidden=256&heads=4`."""

from pathlib import Path

import numpy as np

from . import sources
from .backbone import BertConfig
from .checkpoints import Checkpoint, wordpiece
from .errors import UserError
from .text import TextEncoder

_POSITIONS = 0.05  # height of the waves; words start at .02
SIZES = {"layers": 4, "hidden": 256, "heads": 4, "intermediate": 0, "positions": 512}


def load(settings: str, cased: bool | None) -> Checkpoint:
    """Read `vocab=FILE&layers=...`: a vocabulary and sizes; weights are new."""
    source = f"new:{settings}"
    options = sources.parse_options(settings, source)
    unknown = next((key for key in options if key not in ("vocab", *SIZES)), None)
    if unknown is not None or "vocab" not in options:
        wrong = "names no vocab" if unknown is None else f"has an unknown setting {unknown!r}"
        raise UserError(f"Backbone {source!r} {wrong}. Write new:vocab=vocab.txt, and with & "
                        f"between two of them {', '.join(f'{k}=NUMBER' for k in SIZES)}.")
    sizes = dict(SIZES)
    for name in sizes.keys() & options.keys():
        if not (options[name].isascii() and options[name].isdigit() and int(options[name])):
            raise UserError(f"Backbone {source!r} has {name}={options[name]}; allowed are whole "
                            "numbers from 1 on.")
        sizes[name] = int(options[name])
    if sizes["hidden"] % sizes["heads"]:
        raise UserError(f"Backbone {source!r} has hidden={sizes['hidden']} and "
                        f"heads={sizes['heads']}; the first must be a multiple of the second.")
    encoder = _tokenizer(Path(options["vocab"]), cased, sizes["positions"])
    config = BertConfig(
        vocab_size=len(encoder.vocabulary), hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"],
        intermediate_size=sizes["intermediate"] or 4 * sizes["hidden"],
        max_position_embeddings=sizes["positions"], pad_token_id=encoder.pad_id)
    return Checkpoint(source, config, encoder, None, sinusoids(sizes["positions"],
                                                               sizes["hidden"]))


def sinusoids(positions: int, hidden: int) -> np.ndarray:
    """Give the position table that learning starts from: (positions, hidden).

    Waves (Vaswani et al. 2017), in which a neighbour is a rotation away: a masked language model
    finds its words' neighbours in half the steps that random tables take (docs/decisions.md).
    """
    waves = 10000.0 ** (np.arange((hidden + 1) // 2) * -2 / hidden)
    angles = np.arange(positions)[:, None] * waves
    table = np.concatenate([np.sin(angles), np.cos(angles)], 1)[:, :hidden]
    return (_POSITIONS * table).astype(np.float32)


def _tokenizer(vocabulary: Path, cased: bool | None, positions: int) -> TextEncoder:
    """Read a tokenizer.json, which says all by itself, or a vocab.txt."""
    if not vocabulary.is_file():
        raise UserError(f"vocab={vocabulary} is no file. Name a vocab.txt or a tokenizer.json; "
                        "`python -m tf_pipeline vocabulary` makes a vocab.txt of your texts.")
    if vocabulary.suffix == ".json":
        encoder = TextEncoder.load(vocabulary, positions)
        encoder.pad_id = encoder.number(encoder.pad_token)
        return encoder
    if cased is None:
        raise UserError(f"vocab={vocabulary} does not say whether capitals count. Pass --cased or "
                        "--uncased, as its pieces are written.")
    try:
        pieces = vocabulary.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"vocab={vocabulary} is not UTF-8 at byte {error.start}. A vocab.txt has "
                        "one piece a line.") from None
    return wordpiece(pieces, not cased, None, positions)
