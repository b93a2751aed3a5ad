"""Peer: optimum's ONNX export of a folder that transformers opens, and its int8 file.

python optimum_export.py FOLDER OUT [--cpu avx512_vnni|avx2]
"""

import argparse

from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("out")
parser.add_argument("--cpu", default="avx512_vnni", choices=["avx512_vnni", "avx2"])
flags = parser.parse_args()

ORTModelForSequenceClassification.from_pretrained(flags.folder, export=True).save_pretrained(
    flags.out)
# Settings as `optimum-cli onnxruntime quantize` has them.
settings = getattr(AutoQuantizationConfig, flags.cpu)(is_static=False, per_channel=False)
ORTQuantizer.from_pretrained(flags.out, file_name="model.onnx").quantize(
    save_dir=flags.out, quantization_config=settings)
