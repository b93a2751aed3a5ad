"""The peer: fine-tune the same checkpoint with PyTorch and transformers; one JSON line at the end.

    PYTHON benchmarks/peers/finetune.py --task classify --train train.csv --test test.csv

PYTHON has benchmarks/peers/requirements.txt. The usual recipe: AdamW, linear warm-up and decay,
bfloat16 unless asked otherwise, texts of like length together, all training rows, the last epoch's
weights.
"""

import argparse
import csv
import json
import random
import resource
import time
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

IMPORTED = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
IGNORED = -100  # what PyTorch's cross-entropy leaves out


def read_table(path, task):
    """Read texts and labels; a multilabel file has no header: text, label numbers, id."""
    with open(path, encoding="utf-8", newline="") as stream:
        if task == "multilabel":
            rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            return [(row[0], [int(i) for i in row[1].split(",")]) for row in rows]
        tabs = path.endswith(".tsv")
        rows = csv.DictReader(stream, delimiter="\t" if tabs else ",",
                              quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
        return [(row.get("text", row.get("sentence")), row["label"]) for row in rows]


def read_conll(path):
    """Read sentences of (words, tags); IOB1 becomes BIO."""
    sentences, words, tags, before = [], [], [], "O"
    for line in [*Path(path).read_text("utf-8").split("\n"), ""]:
        line = line.strip()
        if not line or line.startswith("-DOCSTART-"):
            if words:
                sentences.append((words, tags))
            words, tags, before = [], [], "O"
            continue
        columns = line.split()
        tag = columns[-1]
        if tag.startswith("I-") and before[2:] != tag[2:]:
            tags.append("B-" + tag[2:])
        else:
            tags.append(tag)
        words.append(columns[0])
        before = tag
    return sentences


def encode(rows, task, tokenizer, index, max_len):
    """Give (ids, target) of each row; of tags, a target for each piece."""
    if task != "tag":
        texts = [text for text, _ in rows]
        ids = tokenizer(texts, truncation=True, max_length=max_len)["input_ids"]
        if task == "classify":
            return [(i, index[label]) for i, (_, label) in zip(ids, rows, strict=True)]
        return [(i, np.isin(range(len(index)), labels).astype(np.float32))
                for i, (_, labels) in zip(ids, rows, strict=True)]
    encoded = []
    for words, tags in rows:
        row = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_len)
        places = row.word_ids()
        first = [place is not None and (i == 0 or places[i - 1] != place)
                 for i, place in enumerate(places)]
        encoded.append((row["input_ids"], [index[tags[place]] if opens else IGNORED
                                           for place, opens in zip(places, first, strict=True)]))
    return encoded


def batch_of(examples, task, pad, device):
    """Pad to the longest."""
    longest = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([i + [pad] * (longest - len(i)) for i, _ in examples], device=device)
    mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i, _ in examples],
                        device=device)
    if task == "tag":
        targets = [t + [IGNORED] * (longest - len(t)) for _, t in examples]
    else:
        targets = np.array([t for _, t in examples])
    return {"input_ids": ids, "attention_mask": mask}, torch.tensor(targets, device=device)


def like_lengths(examples, size):
    """Shuffle, then sort inside groups of 50 batches, as transformers' group_by_length."""
    order = random.sample(range(len(examples)), len(examples))
    group = 50 * size
    order = [j for i in range(0, len(order), group)
             for j in sorted(order[i:i + group], key=lambda k: -len(examples[k][0]))]
    batches = [order[i:i + size] for i in range(0, len(order) - size + 1, size)]
    return random.sample(batches, len(batches))


@torch.no_grad()
def predict(model, examples, task, pad, device):
    """Give the logits of every example, in order."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i][0]))
    found = [None] * len(examples)
    for start in range(0, len(order), 64):
        rows = order[start:start + 64]
        inputs, _ = batch_of([examples[i] for i in rows], task, pad, device)
        for i, logits in zip(rows, model(**inputs).logits.float().cpu().numpy(), strict=True):
            found[i] = logits
    return found


def score(task, logits, examples, rows, labels):
    """Score as the kit does; of several labels, those over 0.5."""
    from sklearn.metrics import f1_score

    if task == "classify":
        chosen, right = np.argmax(logits, -1), [target for _, target in examples]
        return {"accuracy": float(np.mean(chosen == right)),
                "macro_f1": float(f1_score(right, chosen, average="macro"))}
    if task == "multilabel":
        given, right = np.array(logits) > 0, np.array([target for _, target in examples]) > 0
        return {"macro_f1": float(f1_score(right, given, average="macro", zero_division=0)),
                "micro_f1": float(f1_score(right, given, average="micro", zero_division=0))}
    from seqeval.metrics import f1_score as span_f1

    known, found = [tags for _, tags in rows], []
    for values, (_, targets), (words, _) in zip(logits, examples, rows, strict=True):
        tags = [labels[int(v.argmax())] for v, t in zip(values, targets, strict=False)
                if t != IGNORED]
        found.append(tags + ["O"] * (len(words) - len(tags)))
    flat, guessed = ([t for row in part for t in row] for part in (known, found))
    return {"span_f1": float(span_f1(known, found)),
            "token_accuracy": float(np.mean(np.array(flat) == np.array(guessed))),
            "token_macro_f1": float(f1_score(flat, guessed, labels=labels, average="macro"))}


def main():
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=("classify", "multilabel", "tag"), required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--model", required=True, help="folder of the checkpoint")
    parser.add_argument("--max-len", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--out", type=Path, help="also write the line into this file")
    flags = parser.parse_args()
    random.seed(flags.seed)
    torch.manual_seed(flags.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    if flags.task == "tag":
        train, test = read_conll(flags.train), read_conll(flags.test)
        labels = sorted({tag for _, tags in train for tag in tags})
    else:
        train, test = (read_table(path, flags.task) for path in (flags.train, flags.test))
        labels = sorted({label for _, label in train} if flags.task == "classify" else
                        {label for _, row in train for label in row})
    index = {label: i for i, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(flags.model)
    kind = (AutoModelForTokenClassification if flags.task == "tag"
            else AutoModelForSequenceClassification)
    problem = {"multilabel": {"problem_type": "multi_label_classification"}}.get(flags.task, {})
    model = kind.from_pretrained(flags.model, num_labels=len(labels), **problem).to(device)
    examples = encode(train, flags.task, tokenizer, index, flags.max_len)

    size, pad = flags.batch_size, tokenizer.pad_token_id
    steps = flags.epochs * (len(examples) // size)
    optimizer = torch.optim.AdamW(model.parameters(), flags.learning_rate, weight_decay=0.01)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.06 * steps), steps)
    model.train()
    start = time.perf_counter()
    for _ in range(flags.epochs):
        for rows in like_lengths(examples, size):
            inputs, targets = batch_of([examples[i] for i in rows], flags.task, pad, device)
            with torch.autocast(device, torch.bfloat16, flags.precision == "bfloat16"):
                loss = model(**inputs, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.perf_counter() - start
    model.eval()
    known = encode(test, flags.task, tokenizer, index, flags.max_len)
    logits = predict(model, known, flags.task, pad, device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    line = json.dumps({"scores": score(flags.task, logits, known, test, labels),
                       "device": f"{name} (torch {torch.__version__})",
                       "precision": ("bfloat16 autocast" if flags.precision == "bfloat16"
                                     else flags.precision),
                       "examples_per_s": steps * size / seconds, "maxrss_imported": IMPORTED})
    print(line)
    if flags.out:
        flags.out.write_text(line + "\n")


if __name__ == "__main__":
    main()
