"""Peer: transformers' pipeline behind FastAPI.

python serving_transformers.py FOLDER PORT MAX_LEN
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

folder, port, max_len = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
classify = pipeline("text-classification", model=folder, device="cpu")
app = FastAPI()


class Request(BaseModel):
    """A text."""

    text: str


# Not in FastAPI's threads: on one core they take turns, and all answers come late together.
@app.post("/predict")
async def predict(request: Request) -> dict:
    """Give its label and score."""
    return classify(request.text, truncation=True, max_length=max_len)[0]


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
