"""Runs where sentence-transformers is installed: `FOLDER FILE OUT.npy`, texts in, vectors to OUT.

One text at a time, as int8 files want it.
"""

import json
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

folder, file, out = sys.argv[1:]
model = SentenceTransformer(folder, backend="onnx", model_kwargs={"file_name": f"onnx/{file}"})
np.save(out, model.encode(json.load(sys.stdin), batch_size=1))
