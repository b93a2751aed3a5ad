"""Words and the pieces that stand for them: what is read at a word is read at its first piece."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding

Spans = list[tuple[int, int]]  # first character and the one after the last, of each word


@dataclass(frozen=True)
class Words:
    """Where each text's words stand in `Encoded.ids`: text i has words splits[i]:splits[i + 1].

    A text longer than max_len is encoded as several windows, so there may be more of those than
    texts. Each word is counted once, in the window that shows most around it.
    """

    first: np.ndarray  # int64 (words,): place of the first piece; -1 for a word without a piece
    offsets: np.ndarray  # int64 (words, 2): characters in the text
    splits: np.ndarray  # int64 (texts + 1,)
    owners: np.ndarray  # int64 (windows,): the text of each

    tokens_a_batch: ClassVar[int] = 1 << 20  # most that run_all asks a model for at once

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def counts(self) -> np.ndarray:
        """Words of each text: (texts,)."""
        return np.diff(self.splits)

    def keep(self, name: str, values: np.ndarray,
             numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Choose what stays of an output's values (words, ...) for the words with these numbers."""
        return {name: values}

    def padded(self, values: np.ndarray) -> np.ndarray:
        """Lay word values (words, ...) out by text: (texts, most words, ...), zeros after."""
        result = np.zeros((len(self), int(self.counts.max(initial=0)), *values.shape[1:]),
                          values.dtype)
        result[self._grid()] = values
        return result

    def at_first(self, tokens: int) -> np.ndarray:
        """Number the words at their first pieces, -1 at all other tokens: (tokens,)."""
        numbers = np.full(tokens, -1)
        seen = np.flatnonzero(self.first >= 0)
        numbers[self.first[seen]] = seen
        return numbers

    def at_tokens(self, values: np.ndarray, tokens: int, fill: int) -> np.ndarray:
        """Put word values (texts, most words) on first pieces, `fill` on all others: (tokens,)."""
        result = np.full(tokens, fill, values.dtype)
        seen = self.first >= 0
        rows, places = self._grid()
        result[self.first[seen]] = values[rows[seen], places[seen]]
        return result

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Give each word's text and its place in it."""
        places = np.arange(len(self.first)) - np.repeat(self.splits[:-1], self.counts)
        return np.repeat(np.arange(len(self)), self.counts), places


def split(text: str) -> tuple[list[str], Spans]:
    """Split a text as BERT does: at blanks, around punctuation, and around Han characters."""
    from tokenizers import Regex, pre_tokenizers

    splitter = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"),
                                        pre_tokenizers.BertPreTokenizer()])
    found = splitter.pre_tokenize_str(text)
    return [word for word, _ in found], [span for _, span in found]


def joined(words: Sequence[str]) -> Spans:
    """Give each word's characters in the text that blanks make of them."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    return [(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)]


def place(windows: Sequence["Encoding"], starts: Sequence[int], skipped: Set[int | None],
          known: Spans | None) -> tuple[list[int], Spans]:
    """Give each word's first piece, as a place in all ids, and its characters in the text.

    `known` are the characters of words that were given apart; without them words and characters
    are what the tokenizer found. Pieces with an id in `skipped` belong to no word.
    """
    best: dict[int, tuple[int, int]] = {}  # word -> (tokens to the nearer edge, place)
    spans: dict[int, tuple[int, int]] = {}
    for window, start in zip(windows, starts, strict=True):
        length, before = len(window.ids), None
        for token, word in enumerate(window.word_ids):
            if word is None or window.ids[token] in skipped:
                continue
            begin, end = window.offsets[token]
            first, last = spans.get(word, (begin, end))
            spans[word] = (min(first, begin), max(last, end))
            # A window that opens inside a word does not show that word's first piece.
            opens = token == 1 and start != starts[0]
            if word != before and not (opens and _is_inside(windows, window, word)):
                room = min(token, length - 1 - token)
                best[word] = max(best.get(word, (-1, -1)), (room, start + token))
            before = word
    if known is None:
        order = sorted(spans)
        return [best[word][1] for word in order], [spans[word] for word in order]
    return [best[i][1] if i in best else -1 for i in range(len(known))], known


def _is_inside(windows: Sequence["Encoding"], window: "Encoding", word: int) -> bool:
    """Tell whether another window holds an earlier piece of the word that this one opens with."""
    begin = window.offsets[1][0]
    return any(w == word and other.offsets[i][0] < begin
               for other in windows if other is not window for i, w in enumerate(other.word_ids))
