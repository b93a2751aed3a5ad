"""A WordPiece vocabulary from text, for `--backbone new:vocab=FILE`.

`python -m tf_pipeline vocabulary --train lines:corpus.txt --size 8000 --uncased --out vocab.txt`
"""

from collections.abc import Sequence

from . import files, sources
from .config import VocabularyConfig
from .errors import UserError
from .task import text_of
from .text import SPECIAL_TOKENS

_SEEN = 2  # times that a piece must come: what came once may be a slip


def write(config: VocabularyConfig) -> int:
    """Write the file and give the number of texts that it was made of."""
    files.refuse_existing(config.out, "--out")
    texts = [text_of(record) for record in sources.read(config.train)]
    pieces = train(texts, config.size, bool(config.cased))
    files.write_text(config.out, "".join(f"{piece}\n" for piece in pieces))
    return len(texts)


def train(texts: list[str], size: int, cased: bool) -> list[str]:
    """Choose exactly `size` pieces: special ones, every character, then what joins most often.

    UserError where the characters alone are more, or the text does not give as many. Text is split
    as BERT does, each Chinese character by itself.
    """
    # Pieces of equal frequency are taken in the order of their characters' ids, which the trainer
    # draws anew in each process. Characters that it is given keep their place.
    characters = sorted(set(_pieces(texts, 0, cased, ())) - set(SPECIAL_TOKENS))
    least = len(SPECIAL_TOKENS) + len(characters)
    if least > size:
        raise UserError(f"--size is {size}, and the characters of {len(texts)} texts alone are "
                        f"{least} pieces. Give at least {least}, and more for words.")
    pieces = _pieces(texts, size, cased, characters)
    if len(pieces) < size:
        raise UserError(f"--size is {size}, and {len(texts)} texts give only {len(pieces)} pieces "
                        f"that come {_SEEN} times or more. Give at most {len(pieces)}, or more "
                        "text.")
    return pieces


def _pieces(texts: list[str], size: int, cased: bool, first: Sequence[str]) -> list[str]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=not cased)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.train_from_iterator(texts, WordPieceTrainer(
        vocab_size=size, min_frequency=_SEEN, special_tokens=[*SPECIAL_TOKENS, *first],
        show_progress=False))
    found = tokenizer.get_vocab()
    return sorted(found, key=found.__getitem__)
