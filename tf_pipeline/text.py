"""Text to token ids with Hugging Face `tokenizers`; tokenizer.json is the only source of truth.

Nothing here imports TensorFlow: training, evaluation and serving encode through this one class.
"""

import json
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import words
from .errors import UserError
from .words import Words

if TYPE_CHECKING:
    from tokenizers import Encoding

Arrays = dict[str, np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WORD_START = "▁"  # of SentencePiece; a piece of its own before what has no piece with it
CASE_MARKS = ("⁕", "⁑")  # written before a word that begins with one capital, or with several
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts without padding: text i holds `ids[splits[i]:splits[i + 1]]`."""

    ids: np.ndarray  # int32, all texts one after the other
    types: np.ndarray  # int32, 0 for the first text of a pair and 1 for the second
    splits: np.ndarray  # int64, (texts + 1,)
    cut: int = 0  # how many texts were longer than max_len
    pad_id: int = 0
    words: "Words | None" = None  # where each word stands, if they were asked for
    # int64 (records, texts of each), where a record is several texts: which they are. Equal texts
    # are held once.
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def examples(self) -> int:
        """What a training step counts: texts, or groups of them."""
        return len(self) if self.groups is None else len(self.groups)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, special ones included: (texts,)."""
        return np.diff(self.splits)

    @property
    def text_lengths(self) -> np.ndarray:
        """Tokens of each text, over all its windows, or of each group's longest: (records,)."""
        if self.groups is not None:
            return self.lengths[self.groups].max(1)
        if self.words is None:
            return self.lengths
        return np.bincount(self.words.owners, self.lengths, len(self.words)).astype(np.int64)

    def heads(self) -> "Encoded":
        """Give each record's first text or window, without words: what a graph of one text sees."""
        if self.groups is not None:
            return self.take(self.groups[:, 0])
        if self.words is None:
            return self
        return self.take(np.searchsorted(self.words.owners, np.arange(len(self.words))))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Encoded":
        """Pick rows, in the order given."""
        spans = [slice(self.splits[i], self.splits[i + 1]) for i in rows]
        empty = np.zeros(0, np.int32)
        return Encoded(np.concatenate([self.ids[s] for s in spans] or [empty]),
                       np.concatenate([self.types[s] for s in spans] or [empty]),
                       np.concatenate([[0], np.cumsum(self.lengths[list(rows)])]).astype(np.int64),
                       pad_id=self.pad_id)

    def padded(self, rows: Sequence[int] | np.ndarray, length: int) -> Arrays:
        """Lay rows out as the three standard inputs: int32 (rows, length)."""
        shape = (len(rows), length)
        arrays = {"input_ids": np.full(shape, self.pad_id, np.int32),
                  "attention_mask": np.zeros(shape, np.int32),
                  "token_type_ids": np.zeros(shape, np.int32)}
        for row, i in enumerate(rows):
            span = slice(self.splits[i], self.splits[i + 1])
            used = span.stop - span.start
            arrays["input_ids"][row, :used] = self.ids[span]
            arrays["attention_mask"][row, :used] = 1
            arrays["token_type_ids"][row, :used] = self.types[span]
        return arrays


class TextEncoder:
    """Encodes texts as the checkpoint's own tokenizer does, with padding and truncation off.

    The file's own padding and truncation are cleared: the MiniLM file pads every text to 128.
    """

    def __init__(self, tokenizer_json: str, max_len: int = 128, pad_id: int = 0):
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.max_len = max_len
        self.pad_id = pad_id

    @classmethod
    def load(cls, path: Path, max_len: int = 128, pad_id: int = 0) -> "TextEncoder":
        """Read a tokenizer.json; a file that is none raises UserError."""
        try:
            text = path.read_text("utf-8")
            whole = "model" in json.loads(text)
        except FileNotFoundError:
            raise UserError(f"No tokenizer at {path}. A checkpoint, run or artifact folder holds "
                            "tokenizer.json; copy it there.") from None
        except ValueError:  # not JSON, or not UTF-8
            whole = False
        if not whole:
            raise UserError(f"{path} is not a tokenizer.json (Hugging Face tokenizers format). "
                            "Copy the file again from its source.")
        return cls(text, max_len, pad_id)

    def to_json(self) -> str:
        """Write the tokenizer as tokenizer.json, without padding and truncation."""
        return self._tokenizer.to_str(pretty=True)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Pieces in the order of their ids: line i of vocab.txt is id i."""
        by_id = sorted(self._tokenizer.get_vocab(with_added_tokens=True).items(),
                       key=lambda item: item[1])
        return [piece for piece, _ in by_id]

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Name the pieces that stand for no text, [UNK] among them, with their ids."""
        added = json.loads(self._tokenizer.to_str())["added_tokens"]
        return {token["content"]: token["id"] for token in added if token["special"]}

    @cached_property
    def unknown_id(self) -> int:
        """The id that stands for what the vocabulary lacks; -1 where nothing does."""
        model = json.loads(self._tokenizer.to_str())["model"]
        if model.get("unk_id") is not None:  # SentencePiece's; WordPiece names the piece
            return int(model["unk_id"])
        found = self._tokenizer.token_to_id(model.get("unk_token") or "")
        return -1 if found is None else found

    @cached_property
    def mask_token(self) -> str:
        """The piece that stands for a hidden one, as it is written in a text."""
        return self._special("mask", "masking needs one. Choose a checkpoint that was pretrained "
                             "with one")

    @cached_property
    def pad_token(self) -> str:
        """The piece that fills short texts up."""
        return self._special("pad", "short texts are filled up with it. Add it to the file's "
                             "added_tokens, with \"special\": true")

    def _special(self, kind: str, need: str) -> str:
        found = [name for name in self.special_ids if name.strip("[]<>").lower() == kind]
        if not found:
            raise UserError(f"The tokenizer has no [{kind.upper()}] or <{kind}> among its special "
                            f"tokens ({', '.join(self.special_ids) or 'none'}), and {need}.")
        return found[0]

    @property
    def separator(self) -> str:
        """The piece that ends a text."""
        return self._tokenizer.encode("").tokens[-1]

    def piece(self, number: int) -> str:
        """Give the piece with this id."""
        return self._tokenizer.id_to_token(number) or ""

    def decode(self, ids: Sequence[int]) -> str:
        """Write token ids as text again, as far as they tell it; without special pieces."""
        return self._tokenizer.decode(list(ids))

    def number(self, piece: str) -> int:
        """Give the id of a piece; UserError where the vocabulary lacks it."""
        found = self._tokenizer.token_to_id(piece)
        if found is None:
            raise UserError(f"The vocabulary has no piece {piece!r}. The data were prepared for "
                            "another tokenizer; give the texts themselves.")
        return found

    def whole(self, texts: Sequence[str]) -> list["Encoding"]:
        """Encode whole texts without special tokens, with each piece's word and characters."""
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)

    @property
    def is_wordpiece(self) -> bool:
        """Whether vocab.txt and BERT's own rules can stand in for tokenizer.json."""
        return json.loads(self._tokenizer.to_str())["model"]["type"] == "WordPiece"

    @property
    def lower_case(self) -> bool:
        """Whether the normalizer folds capitals."""
        normalizer = self._tokenizer.normalizer
        return normalizer is not None and normalizer.normalize_str("aA") == "aa"

    @property
    def marks_case(self) -> bool:
        """Whether words with capitals come with a mark before them."""
        normalizer = self._tokenizer.normalizer
        return normalizer is not None and normalizer.normalize_str("Aa")[0] in CASE_MARKS

    @property
    def strip_accents(self) -> bool:
        """Whether the normalizer removes accents."""
        normalizer = self._tokenizer.normalizer
        return normalizer is not None and normalizer.normalize_str("é") == "e"

    def recase(self, cased: bool) -> "TextEncoder":
        """Give the same vocabulary with capitals kept (and accents with them) or folded."""
        spec = json.loads(self._tokenizer.to_str())
        normalizer = spec.get("normalizer") or {}
        if normalizer.get("type") != "BertNormalizer":
            raise UserError("--cased and --uncased change a BERT normalizer, and this tokenizer "
                            f"has {normalizer.get('type')!r}. Leave the flag out.")
        normalizer["lowercase"] = not cased
        normalizer["strip_accents"] = None  # None: as `lowercase` says
        return TextEncoder(json.dumps(spec), self.max_len, self.pad_id)

    def trim(self, kept: Sequence[int]) -> "TextEncoder":
        """Give a tokenizer of these pieces alone, numbered anew in this order."""
        spec = json.loads(self._tokenizer.to_str())
        new = {number: i for i, number in enumerate(kept)}
        vocabulary = spec["model"]["vocab"]
        spec["model"]["vocab"] = {piece: new[number] for piece, number in vocabulary.items()
                                  if number in new}
        spec["added_tokens"] = [{**token, "id": new[token["id"]]}
                                for token in spec["added_tokens"] if token["id"] in new]
        closing = spec["post_processor"] or {}
        for token in closing.get("special_tokens", {}).values():  # TemplateProcessing
            token["ids"] = [new[number] for number in token["ids"]]
        for name in {"cls", "sep"} & set(closing):  # BertProcessing
            closing[name][1] = new[closing[name][1]]
        return TextEncoder(json.dumps(spec), self.max_len, new[self.pad_id])

    def mark_case(self, ids: Sequence[int]) -> "TextEncoder":
        """Give a tokenizer that folds capitals and tells of them in pieces of their own.

        `John met NASA` becomes `⁕ john met ⁑ nasa`; `ids` are the rows of the two marks. All of it
        stands in tokenizer.json, as rules that every implementation of the format has.
        """
        spec = json.loads(self._tokenizer.to_str())
        vocabulary, normalizer = spec["model"]["vocab"], spec["normalizer"]
        replaced = [piece for piece, number in vocabulary.items() if number in ids]
        for piece in replaced:
            del vocabulary[piece]
        vocabulary |= dict(zip(CASE_MARKS, ids, strict=True))
        # Accents go first, so that É is marked as E is; a regex may look around but not back into
        # what it replaces, hence a rule a letter.
        first = {**normalizer, "lowercase": False, "handle_chinese_chars": False,
                 "strip_accents": self.strip_accents}
        one, several = CASE_MARKS
        rules = [{"type": "Replace", "pattern": {"Regex": f"(?<![A-Za-z0-9_]){letter}{behind}"},
                  "content": mark + letter.lower()}
                 for mark, behind in ((several, "(?=[A-Z])"), (one, ""))
                 for letter in string.ascii_uppercase]
        spec["normalizer"] = {"type": "Sequence", "normalizers": [first, *rules, normalizer]}
        return TextEncoder(json.dumps(spec), self.max_len, self.pad_id)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None,
               max_len: int | None = None) -> Encoded:
        """Encode texts, or text pairs, cutting each to `max_len` tokens and counting the cuts."""
        limit = self.max_len if max_len is None else max_len
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        # Truncation inside the tokenizer keeps the closing [SEP] and shortens the longer of a pair.
        self._tokenizer.enable_truncation(limit)
        encodings = self._tokenizer.encode_batch_fast(rows)
        self._tokenizer.no_truncation()
        lengths = [len(e.ids) for e in encodings]
        ids = [i for e in encodings for i in e.ids]
        types = [t for e in encodings for t in e.type_ids]
        return Encoded(np.array(ids, np.int32), np.array(types, np.int32),
                       np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                       sum(bool(e.overflowing) for e in encodings), self.pad_id)

    def encode_words(self, rows: Sequence[str | list[str]], max_len: int | None = None,
                     overlap: int = 16) -> Encoded:
        """Encode texts, or lists of words, and keep where each word's first piece stands.

        What is longer than `max_len` goes on in further windows, which share `overlap` tokens
        with the one before: nothing is cut. A list of words counts as joined by blanks. Where the
        tokenizer has other words than BERT (SentencePiece's end at blanks only), a text is split
        as BERT does first, so that training on lists of words and answering texts agree.
        """
        limit = self.max_len if max_len is None else max_len
        splits_itself = self.is_wordpiece
        given: list[str | list[str]] = []
        known: list[words.Spans | None] = []
        for row in rows:
            if isinstance(row, str) and splits_itself:
                given.append(row)
                known.append(None)
            else:
                parts, spans = words.split(row) if isinstance(row, str) else (row,
                                                                              words.joined(row))
                given.append(parts)
                known.append(spans)
        self._tokenizer.enable_truncation(limit, stride=min(overlap, (limit - 2) // 2))
        encodings = [self._tokenizer.encode(row, is_pretokenized=not isinstance(row, str))
                     for row in given]
        self._tokenizer.no_truncation()
        windows = [[encoding, *encoding.overflowing] for encoding in encodings]
        starts = np.cumsum([0, *(len(w.ids) for part in windows for w in part)]).tolist()
        # A mark stands for no word: answers are read at the word behind it (docs/decisions.md).
        names = CASE_MARKS if splits_itself else (*CASE_MARKS, WORD_START)
        marks = {self._tokenizer.token_to_id(mark) for mark in names}
        found, number = [], 0
        for own, part in zip(known, windows, strict=True):
            found.append(words.place(part, starts[number:number + len(part)], marks, own))
            number += len(part)
        flat = [w for part in windows for w in part]
        placed = Words(np.array([p for places, _ in found for p in places], np.int64),
                       np.array([o for _, offsets in found for o in offsets],
                                np.int64).reshape(-1, 2),
                       np.cumsum([0, *(len(places) for places, _ in found)]),
                       np.repeat(np.arange(len(windows)), [len(part) for part in windows]))
        return Encoded(np.array([i for w in flat for i in w.ids], np.int32),
                       np.array([t for w in flat for t in w.type_ids], np.int32),
                       np.array(starts, np.int64), 0, self.pad_id, placed)


@dataclass(frozen=True)
class Shapes:
    """The batches that a model takes."""

    size: int = 32  # most texts at once
    length: int | None = None  # the one length that it takes, in tokens; None: any
    few: bool = True  # whether every new shape costs a compilation


# Texts of up to so many times the shortest one's length go into its batch, and those of so many
# tokens more. On a core of x86, four texts within 1.35 take 5 % longer together than one by one
# in int8 and 9 % less in float32; within 1.1 it is 6 % and 16 % less.
_NEAR, _NEAR_TOKENS = 1.25, 2


def batches(encoded: Encoded, shapes: Shapes) -> Iterator[tuple[np.ndarray, Arrays]]:
    """Give (rows, inputs) so that each text comes exactly once, texts of like length together.

    Where shapes are to be few, every batch has the same number of rows (the last one repeats its
    first; `rows` names only the real ones) and a multiple of 8 tokens. Otherwise it has no padding
    but that of texts nearly as long as its longest.
    """
    order = np.argsort(encoded.lengths, kind="stable")
    lengths, size = encoded.lengths[order], min(shapes.size, len(encoded))
    start = 0
    while start < len(order):
        end = start + size
        if not shapes.few:
            near = max(lengths[start] * _NEAR, lengths[start] + _NEAR_TOKENS)
            end = min(end, int(np.searchsorted(lengths, near, "right")))
        rows = order[start:end]
        longest, all_rows = int(lengths[start:end][-1]), rows
        if shapes.few:
            longest = -(-longest // 8) * 8
            all_rows = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])
        yield rows, encoded.padded(all_rows, shapes.length or longest)
        start = end


def generated_texts(encoder: TextEncoder, count: int) -> list[str]:
    """Make texts of random words of the vocabulary, where no real text is at hand or wanted."""
    choose = random.Random(0)
    words = [piece for piece in encoder.vocabulary if piece.isalpha()]
    return [" ".join(choose.choices(words, k=3 + i % 40)) for i in range(count)]
