"""What a conversion can be asked for; the flags of `python -m export convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tf_pipeline.config import option
from tf_pipeline.errors import UserError

Quantize = Literal["int8", "float16", "int8,float16", "none"]
Signatures = Literal["text,tokens", "tokens"]


@dataclass(frozen=True)
class ConvertOptions:
    """Settings of one conversion."""

    formats: tuple[str, ...] = option(("saved_model", "tflite", "onnx"), help="what to write; "
                                      "there is safetensors too, for transformers in PyTorch, and "
                                      "keras")
    lengths: tuple[int, ...] = option((), help="a TFLite file for each; default: the smallest of "
                                      "32, 64, 128, 256 that holds 99 % of the evaluation texts")
    quantize: Quantize = option("int8", help="smaller files of TFLite and ONNX to write beside "
                                "the float32 ones")
    signatures: Signatures = option("text,tokens", help="of the SavedModel; tokens: core "
                                    "operations only, no tf-text in the server")
    version: int = option(1, help="version folder of the SavedModel, as TF Serving counts")
    golden: int = option(64, help="real rows kept in golden.npz for `verify`")
    golden_text: bool = option(True, help="keep those rows' texts, or only generated ones")
    drop_failed: bool = option(False, help="publish without the files that fail parity")
    accept_drift: bool = option(False, help="publish files that fail parity, marked as drifting")
    out: Path | None = option(None, help="artifact folder to write, e.g. artifacts/reviews")

    def __post_init__(self) -> None:
        if not self.formats:
            raise UserError("--formats is empty; name at least one of saved_model, tflite, onnx, "
                            "safetensors, keras.")
        if self.version < 1 or self.golden < 1:
            raise UserError(f"--version is {self.version} and --golden is {self.golden}; both "
                            "must be 1 or more.")
        if bad := [n for n in self.lengths if n < 3]:
            raise UserError(f"--lengths holds {bad[0]}; the shortest useful length is 3.")
        if self.drop_failed and self.accept_drift:
            raise UserError("--drop-failed and --accept-drift contradict each other; give one.")

    @property
    def smaller(self) -> tuple[str, ...]:
        """Variants beside float32."""
        return tuple(name for name in ("float16", "int8") if name in self.quantize)
