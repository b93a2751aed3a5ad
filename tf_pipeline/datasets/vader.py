"""English texts rated by people: `vader:tweets|products|editorials|films`.

Each text has the mean of many people's ratings from -4 to 4. They come from
Hutto & Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM.
"""

import logging
from collections.abc import Iterator

from .. import fetch
from ..errors import UserError
from ..sources import Record
from . import _files

SCHEMES: dict[str, dict[str, str]] = {"vader": {}}
OPTIONS: dict[str, str] = {}
# All four are UTF-8 with CRLF and no header: id, mean rating, text.
FILES = {
    "tweets": "tweets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
}
log = logging.getLogger(__name__)


def read(location: str, options: dict[str, str]) -> Iterator[Record]:
    """Yield {"text", "label", "score"}: the sign and the value of the mean rating, without 0."""
    if location not in FILES:
        raise UserError(f"Unknown VADER set {location!r}. Choose one of: {', '.join(FILES)}.")
    if location == "films":
        log.warning("vader:films is the Rotten Tomatoes MR set and holds 84 % of SST-2's dev "
                    "sentences: a model trained on it must not be scored on SST-2.")
    for line in _files.text_lines(fetch.vader() / FILES[location]):
        _, mean, text = line.rstrip("\r\n").split("\t", 2)
        score = float(mean)
        if score:
            yield {"text": text, "label": "positive" if score > 0 else "negative", "score": score}
