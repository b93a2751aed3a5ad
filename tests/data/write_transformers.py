"""Writes the folders `transformers_*` and their answers; run with transformers and torch.

    pip install torch transformers && python tests/data/write_transformers.py
"""

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TEXTS = ["The room was lovely", "awful, honestly", "", "naïve café — 2026", "word " * 80]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
          *"abcdefghijklmnopqrstuvwxyz0123456789.,!?-—", *(f"##{c}" for c in
                                                          "abcdefghijklmnopqrstuvwxyz0123456789"),
          "the", "room", "was", "lovely", "awful", "word"]


LABELS = {"classify": ["bad", "good", "so-so"], "tag": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
          "multilabel": ["fear", "joy", "anger"], "regress": ["LABEL_0"]}
PROBLEMS = {"multilabel": "multi_label_classification", "regress": "regression"}


def main() -> None:
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertTokenizerFast,
    )

    for task, labels in LABELS.items():
        head = BertForTokenClassification if task == "tag" else BertForSequenceClassification
        torch.manual_seed(0)
        folder = HERE / f"transformers_{task}"
        folder.mkdir(exist_ok=True)
        (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in PIECES), "utf-8")
        tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True)
        config = BertConfig(vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2,
                            num_attention_heads=2, intermediate_size=64,
                            max_position_embeddings=64, initializer_range=0.2,
                            problem_type=PROBLEMS.get(task), id2label=dict(enumerate(labels)),
                            label2id={label: i for i, label in enumerate(labels)})
        model = head(config).eval()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        rows = tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            logits = model(**rows).logits.numpy()
        np.savez_compressed(folder.with_suffix(".npz"), logits=logits)


if __name__ == "__main__":
    main()
