"""Records in, a trained run folder out. `python -m tf_pipeline --help`.

    from tf_pipeline import Predictor, TrainConfig, fit

    run = fit(TrainConfig(task="classify", train="csv:reviews.csv", out="runs/reviews"))
    Predictor("runs/reviews")(["what a film"])

What `__all__` names is the public API and is loaded when first used: importing the package does
nothing. docs/python.md shows each in use.
"""

from typing import TYPE_CHECKING

from .plugins import public

if TYPE_CHECKING:
    from .config import ImportConfig, TrainConfig
    from .errors import ParityError, UserError
    from .importing import import_folder
    from .predictor import Predictor
    from .run import Run
    from .training import fit

__all__ = ["ImportConfig", "ParityError", "Predictor", "Run", "TrainConfig", "UserError", "fit",
           "import_folder"]
__getattr__ = public(__name__, {
    "ImportConfig": "config", "TrainConfig": "config", "ParityError": "errors",
    "UserError": "errors", "import_folder": "importing", "Predictor": "predictor", "Run": "run",
    "fit": "training"})
