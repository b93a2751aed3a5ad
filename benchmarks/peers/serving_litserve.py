"""Peer: LitServe with batching, on optimum's int8 file in onnxruntime.

python serving_litserve.py FOLDER PORT MAX_LEN
"""

import json
import sys
from pathlib import Path

import litserve
import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Classifier(litserve.LitAPI):
    """Texts in, labels out."""

    def setup(self, device: str) -> None:
        """Load the file and the tokenizer."""
        folder, max_len = Path(sys.argv[1]), int(sys.argv[3])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(folder / "model_quantized.onnx", options)
        self.takes = [value.name for value in self.session.get_inputs()]
        self.tokenizer = Tokenizer.from_file(str(folder / "weights/tokenizer.json"))
        self.tokenizer.enable_truncation(max_len)
        self.tokenizer.enable_padding()
        self.labels = json.loads((folder / "weights/config.json").read_text())["id2label"]

    def decode_request(self, request: dict) -> str:
        """Take the text out."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Leave the list as it is: the tokenizer takes one."""
        return inputs

    def predict(self, texts: list[str]) -> list[dict]:
        """Answer a batch."""
        encoded = self.tokenizer.encode_batch(texts)
        columns = {"input_ids": [e.ids for e in encoded],
                   "attention_mask": [e.attention_mask for e in encoded],
                   "token_type_ids": [e.type_ids for e in encoded]}
        logits = self.session.run(None, {name: np.array(columns[name], np.int64)
                                         for name in self.takes})[0]
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return [{"label": self.labels[str(int(row.argmax()))],
                 "score": float(row.max() / row.sum())} for row in powers]

    def unbatch(self, output: list[dict]) -> list[dict]:
        """Leave the list as it is."""
        return output

    def encode_response(self, output: dict) -> dict:
        """Leave the answer as it is."""
        return output


if __name__ == "__main__":
    litserve.LitServer(Classifier(max_batch_size=16, batch_timeout=0.005), accelerator="cpu").run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
