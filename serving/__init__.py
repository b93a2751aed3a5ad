"""An artifact folder in, answers out. `python -m serving --help`.

    from serving import create_app
    from tf_pipeline import Predictor

    app = create_app(Predictor("artifacts/reviews"))  # for any ASGI server

What `__all__` names is the public API and is loaded when first used.
"""

from typing import TYPE_CHECKING

from tf_pipeline.plugins import public

if TYPE_CHECKING:
    from .batch.answerer import BatchAnswerer
    from .options import Limits
    from .server import create_app

__all__ = ["BatchAnswerer", "Limits", "create_app"]
__getattr__ = public(__name__, {"BatchAnswerer": "batch.answerer", "Limits": "options",
                                "create_app": "server"})
