"""Runs where transformers is installed: `FOLDER OUT`, texts as a JSON list in, logits to OUT."""

import json
import sys

import numpy as np
import torch
import transformers

folder, out = sys.argv[1:]
config = transformers.AutoConfig.from_pretrained(folder)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
kind = getattr(transformers, config.architectures[0])
model, about = kind.from_pretrained(folder, output_loading_info=True)
texts = json.load(sys.stdin)
found = {}
with torch.no_grad():
    for i, text in enumerate(texts):
        given = text if isinstance(text, list) else [text]
        inputs = tokenizer(*given, truncation=True, max_length=config.max_position_embeddings,
                           return_tensors="pt")
        answer = model.eval()(**inputs)
        found[f"ids{i}"] = inputs["input_ids"][0].numpy()
        found[f"out{i}"] = (answer.logits if "logits" in answer else answer.last_hidden_state)[
            0].numpy()
np.savez(out, **found)
print(json.dumps({name: sorted(about[name]) for name in ("missing_keys", "unexpected_keys")}))
