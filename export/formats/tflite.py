"""TFLite (LiteRT) for phones and browsers: batch 1, one length a file, builtin operations only."""

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_pipeline.artifact import Graph
from tf_pipeline.errors import ParityError

from .. import mediapipe
from ..options import ConvertOptions
from ..twin import Twin

log = logging.getLogger(__name__)


def convert(twin: Twin, staging: Path, options: ConvertOptions) -> Iterator[Graph]:
    """Write `model_L64.tflite`, `model_L64_int8.tflite` and what else is asked for each length.

    Classifiers get the metadata that MediaPipe opens them by, where it can use them.
    """
    outputs = twin.task.OUTPUTS["tflite"]
    refusal = mediapipe.refusal(twin)
    if refusal and "probabilities" in outputs:
        log.warning("MediaPipe will not open the .tflite files: %s.", refusal)
    for length in options.lengths:
        with tempfile.TemporaryDirectory(dir=staging) as folder:
            _save_frozen(twin, length, Path(folder))
            for variant in ("float32", *options.smaller):
                name = f"model_L{length}{'' if variant == 'float32' else f'_{variant}'}.tflite"
                content = _run_converter(Path(folder), variant)
                if not refusal:
                    content = mediapipe.describe(content, twin.encoder.vocabulary, twin.task.labels)
                (staging / name).write_bytes(content)
                yield Graph(name, "tflite", variant, outputs, len(content), length, batch=1)


def _save_frozen(twin: Twin, length: int, folder: Path) -> None:
    """Save with the weights as constants, under one named signature.

    Three shorter ways write files that look right: from a concrete function there is no signature,
    and from unfrozen variables there are no weights or answers that are NaN.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    specs = twin.specs(1, length, "int32")
    names = twin.task.OUTPUTS["tflite"]
    concrete = tf.function(twin.function(names)).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(concrete)
    order = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    # A dict's outputs are flattened in the order of its sorted keys.
    keys = sorted(names)

    def serve(*tensors: Any) -> dict[str, Any]:
        given = dict(zip((s.name for s in specs), tensors, strict=True))
        return dict(zip(keys, frozen(*[given[name] for name in order]), strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(folder),
                        signatures={"serving_default": module.serve.get_concrete_function()})


def _run_converter(folder: Path, variant: str) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder),
                                                         signature_keys=["serving_default"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if variant != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]  # dynamic range: weights in 8 bits
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]  # weights; GPUs compute in it too
    try:
        return converter.convert()
    except ConverterError as error:
        ops = sorted(set(re.findall(r"tf\.[A-Z]\w+", str(error))))
        raise ParityError(f"TFLite has no builtin for {', '.join(ops) or 'an operation'} in this "
                          f"model: {str(error).splitlines()[0]}") from error
