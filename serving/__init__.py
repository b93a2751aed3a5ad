"""An artifact folder in, answers out. `python -m serving --help`.

    from serving import create_app
    from tf_pipeline import Predictor

    app = create_app(Predictor("artifacts/reviews"))  # for any ASGI server

    from serving import Client

    with Client("http://127.0.0.1:8501", model="reviews") as client:
        client.answer(["what a film"])

What `__all__` names is the public API and is loaded when first used.
"""

from typing import TYPE_CHECKING

from tf_pipeline.plugins import public

if TYPE_CHECKING:
    from .batch.answerer import BatchAnswerer
    from .client import AsyncClient, Client
    from .exchange import ServingError, ServingTimeout
    from .options import Limits
    from .server import create_app

__all__ = ["AsyncClient", "BatchAnswerer", "Client", "Limits", "ServingError", "ServingTimeout",
           "create_app"]
__getattr__ = public(__name__, {"AsyncClient": "client", "BatchAnswerer": "batch.answerer",
                                "Client": "client", "Limits": "options",
                                "ServingError": "exchange", "ServingTimeout": "exchange",
                                "create_app": "server"})
