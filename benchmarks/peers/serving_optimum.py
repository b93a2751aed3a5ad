"""Peer: optimum with onnxruntime on its own int8 file, behind FastAPI.

python serving_optimum.py FOLDER PORT MAX_LEN
"""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from optimum.onnxruntime import ORTModelForSequenceClassification
from pydantic import BaseModel
from transformers import AutoTokenizer

folder, port, max_len = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = ORTModelForSequenceClassification.from_pretrained(
    folder, file_name="model_quantized.onnx", session_options=options)
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/weights")
app = FastAPI()


class Request(BaseModel):
    """A text."""

    text: str


# Not in FastAPI's threads: on one core they take turns, and all answers come late together.
@app.post("/predict")
async def predict(request: Request) -> dict:
    """Give its label and score."""
    inputs = tokenizer(request.text, truncation=True, max_length=max_len, return_tensors="np")
    logits = model(**inputs).logits[0]
    powers = np.exp(logits - logits.max())
    best = int(powers.argmax())
    return {"label": model.config.id2label[best], "score": float(powers[best] / powers.sum())}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
