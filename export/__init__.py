"""A run folder in, a verified artifact folder out. `python -m export --help`.

    from export import convert, verify

    manifest = convert("runs/reviews", "artifacts/reviews")
    verify("artifacts/reviews")

What `__all__` names is the public API and is loaded when first used.
"""

from typing import TYPE_CHECKING

from tf_pipeline.plugins import public

if TYPE_CHECKING:
    from .options import ConvertOptions
    from .pipeline import convert
    from .verification import verify

__all__ = ["ConvertOptions", "convert", "verify"]
__getattr__ = public(__name__, {
    "ConvertOptions": "options", "convert": "pipeline", "verify": "verification"})
