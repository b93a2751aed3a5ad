"""Runs where optimum is installed: a JSON list of [FOLDER, FILE, OUT.npz, TEXTS] in, logits to OUT.

One text at a time, as int8 files want it.
"""

import json
import sys

import numpy as np
from optimum import onnxruntime
from transformers import AutoConfig, AutoTokenizer

for folder, file, out, texts in json.load(sys.stdin):
    (architecture,) = AutoConfig.from_pretrained(folder).architectures
    # BertForTokenClassification is ORTModelForTokenClassification there; a model without a head:
    kind = architecture.replace("Bert", "ORT").replace("ORTModel", "ORTForFeatureExtraction")
    model = getattr(onnxruntime, kind.replace("ORTFor", "ORTModelFor")).from_pretrained(
        folder, subfolder="onnx", file_name=file)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for i, text in enumerate(texts):
        given = text if isinstance(text, list) else [text]
        inputs = tokenizer(*given, truncation=True, return_tensors="np")
        answer = model(**inputs)
        values = answer["logits" if "logits" in answer else "last_hidden_state"]
        found |= {f"ids{i}": inputs["input_ids"][0], f"out{i}": np.asarray(values)[0]}
    np.savez(out, **found)
