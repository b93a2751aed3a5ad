"""Two texts in, one label out: the same question, an answer that fits, entailment.

Records: `text`, `text_b`, `label`. For a graded similarity instead of a label: `regress`.
"""

from . import classify
from .classify import Options as Options


class Task(classify.Task):
    """`classify` where no record may lack its second text."""

    FIELDS = ("text", "text_b", "label")
