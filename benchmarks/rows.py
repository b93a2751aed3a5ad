"""The lines of the quality table: which data, which flags, which figure to reach."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.shared import read, text, write


@dataclass(frozen=True)
class Row:
    """One line of the table. `{data}`, `{work}`, `{models}`, `{start}` in flags are folders."""

    name: str
    about: str
    train: str  # flags of `python -m tf_pipeline train`
    metrics: dict[str, str]  # name in metrics.json -> name in the table
    goal: str
    published: str = "-"
    repeats: tuple[str, ...] = ("0", "1", "2")  # seeds, or folds
    seeded: bool = True  # whether repeats are seeds; folds stand in the flags as {repeat}
    prepare: Callable[[Path, Path], None] | None = None  # writes {work}/NAME from the data
    start: str | None = None  # flags of a training before, whose run is {start}
    also: dict[str, str] = field(default_factory=dict)  # name -> further data with labels
    outside: dict[str, str] = field(default_factory=dict)  # name -> texts out of scope
    peer: str | None = None  # flags of benchmarks/peers/finetune.py
    baseline: bool = False  # whether benchmarks/baseline.py is measured too


def folds(data: Path, work: Path) -> None:
    """Cut Financial PhraseBank into five stratified folds; of each, four train and one tests."""
    from sklearn.model_selection import StratifiedKFold

    rows = read(data / "financial_phrasebank/sentences_50agree.csv")
    cuts = StratifiedKFold(5, shuffle=True, random_state=0).split(rows, [r["label"] for r in rows])
    for number, (train, test) in enumerate(cuts):
        write(work / f"phrasebank/train{number}.csv", [rows[i] for i in train])
        write(work / f"phrasebank/test{number}.csv", [rows[i] for i in test])


def held_out_intents(data: Path, work: Path) -> None:
    """Leave 12 of the 77 intents out of training; their test texts are out of scope."""
    train, test = (read(data / f"banking77/{part}.csv") for part in ("train", "test"))
    unseen = set(random.Random(0).sample(sorted({r["label"] for r in train}), 12))
    write(work / "scope/train.csv", [r for r in train if r["label"] not in unseen])
    write(work / "scope/test.csv", [r for r in test if r["label"] not in unseen])
    write(work / "scope/near.csv", [r for r in test if r["label"] in unseen])
    news = read(data / "ag_news/test.csv")
    write(work / "scope/far.csv", [{"text": r["text"]} for r in
                                   random.Random(0).sample(news, min(2000, len(news)))])


def chinese_names(data: Path, work: Path) -> None:
    """Write CLUENER as CoNLL: a Han character, word or sign a line."""
    for part in ("train", "dev"):
        sentences = ["\n".join(f"{token} {tag}" for token, tag in _tagged(row))
                     for row in read(data / f"cluener/{part}.jsonl")]
        (work / "cluener").mkdir(parents=True, exist_ok=True)
        (work / f"cluener/{part}.txt").write_text("\n\n".join(sentences) + "\n", "utf-8")


def _tagged(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give CLUENER's text in words with B- and I- tags; its ends are inclusive."""
    from tf_pipeline.words import split

    tokens, places = split(row["text"])
    tags = ["O"] * len(tokens)
    for kind, mentions in row["label"].items():
        for start, end in (span for found in mentions.values() for span in found):
            inside = [i for i, (a, b) in enumerate(places) if a <= end and b > start]
            for i in inside:
                tags[i] = f"{'B' if i == inside[0] else 'I'}-{kind}"
    return zip(tokens, tags, strict=True)


def questions(data: Path, work: Path) -> None:
    """Join AFQMC's training pairs and every other one of LCQMC's; the others of LCQMC test."""
    small, other = read(data / "afqmc/train.csv"), read(data / "lcqmc/dev.csv")
    write(work / "questions/train.csv", [*small, *other[::2]])
    write(work / "questions/lcqmc.csv", other[1::2])


def financial_texts(data: Path, work: Path) -> None:
    """Write business news and a bank's answers, a text a line, and PhraseBank's folds."""
    folds(data, work)
    news = [row["text"] for part in ("test", "train_5k", "train_10k_description")
            for row in read(data / f"ag_news/{part}.csv") if row["label"] == "Business"]
    answers = [row["answer"] for row in read(data / "bank_faqs/faqs.csv")]
    _lines(work / "corpora/financial.txt", [*news, *answers])


def cased_news(data: Path, work: Path) -> None:
    """Write news with capitals and CoNLL's training documents as running text, a text a line."""
    news = [row["text"] for part in ("test", "train_5k", "train_10k_description")
            for row in read(data / f"ag_news/{part}.csv") if row["text"] != row["text"].lower()]
    documents = [" ".join(line.split()[0] for line in part.splitlines()[1:] if line.strip())
                 for part in text(data / "conll2003_en/eng.train").split("-DOCSTART-") if part]
    _lines(work / "corpora/news.txt", [*news, *documents])


def chinese_texts(data: Path, work: Path) -> None:
    """Write the training texts of TNEWS and CLUENER, a text a line, and CLUENER's words."""
    chinese_names(data, work)
    # Those two alone: with the texts of all Chinese data sets it was nine times the steps.
    _lines(work / "corpora/chinese.txt", [row["text"] for name in (
        "tnews/train.csv", "cluener/train.jsonl") for row in read(data / name)])


def _lines(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(" ".join(t.split()) for t in dict.fromkeys(texts)) + "\n", "utf-8")


_SST2 = "tsv:{data}/sst2/train.tsv?text=sentence --test tsv:{data}/sst2/dev.tsv?text=sentence"
_STSB = ("--task embed --train csv:{data}/stsb/en-train.csv?text=text_a --validation "
         "csv:{data}/stsb/en-dev.csv?text=text_a --test csv:{data}/stsb/en-test.csv?text=text_a "
         "--max-len 64")
_MEAN = "--pooling mean --precision mixed_bfloat16"
_ME5 = "--backbone {models}/me5-small-zh-en"
_BERT = "BERT-base-chinese"
_PHRASEBANK = ("--task classify --train csv:{work}/phrasebank/train{repeat}.csv --test "
               "csv:{work}/phrasebank/test{repeat}.csv --max-len 128 --epochs 4 --learning-rate "
               "1e-4 --patience 4 --precision mixed_bfloat16")
_CONLL = ("--task tag --train conll:{data}/conll2003_en?unit=document --max-len 192 --batch-size 8 "
          "--epochs 10 --learning-rate 3e-4 --patience 10 --precision mixed_bfloat16")
_SPANS = {"span_f1": "span F1", "token_accuracy": "token accuracy",
          "token_macro_f1": "token macro F1"}
_TNEWS = ("--task classify --train csv:{data}/tnews/train.csv --test csv:{data}/tnews/dev.csv "
          "--max-len 64 --precision mixed_bfloat16")
_CLUENER = ("--task tag --train conll:{work}/cluener/train.txt --test conll:{work}/cluener/dev.txt "
            "--max-len 96 --precision mixed_bfloat16")
_NEW = "--backbone new:vocab={data}/vocabs/bert-base-chinese-vocab.txt"
_PRETRAINED = (f"--task mlm --train lines:{{work}}/corpora/chinese.txt {_NEW} --uncased --max-len "
               "64 --batch-size 16 --epochs 8 --learning-rate 3e-4")
_SCRATCH = "--learning-rate 3e-4 --precision auto"

ROWS = (
    Row("sst2", "SST-2, dev",
        f"--task classify --train {_SST2} --max-len 64 --epochs 2 --learning-rate 1e-4 "
        "--precision mixed_bfloat16",
        {"accuracy": "accuracy"}, "the peer's best, .893", ".935 (BERT-base)",
        peer="--task classify --train {data}/sst2/train.tsv --test {data}/sst2/dev.tsv "
             "--max-len 64 --epochs 2 --learning-rate 1e-4"),
    Row("banking77", "Banking77, test",
        "--task classify --train csv:{data}/banking77/train.csv --test "
        "csv:{data}/banking77/test.csv --max-len 64 --epochs 8 --learning-rate 3e-4 "
        f"--patience 8 {_MEAN}",
        {"accuracy": "accuracy"}, "the peer's, .931", ".937 (BERT-base)",
        peer="--task classify --train {data}/banking77/train.csv --test "
             "{data}/banking77/test.csv --max-len 64 --epochs 8 --learning-rate 2e-4"),
    Row("goemotions", "GoEmotions, 28 labels, test",
        "--task multilabel --train tsv:{data}/goemotions?header=text,labels,id&label_names="
        "{data}/goemotions/emotions.txt --max-len 64 --epochs 4 --learning-rate 2e-4 "
        f"--patience 4 {_MEAN}",
        {"macro_f1": "macro F1", "micro_f1": "micro F1"}, "the peer's; aim .46",
        ".46 (BERT-base)",
        peer="--task multilabel --train {data}/goemotions/train.tsv --test "
             "{data}/goemotions/test.tsv --max-len 64 --epochs 4 --learning-rate 1e-4"),
    Row("phrasebank", "Financial PhraseBank 50agree, 5 folds",
        _PHRASEBANK, {"accuracy": "accuracy", "macro_f1": "macro F1"}, "the peer's; aim .86",
        ".86 (FinBERT)", repeats=("0", "1", "2", "3", "4"), seeded=False,
        prepare=folds,
        peer="--task classify --train {work}/phrasebank/train{repeat}.csv --test "
             "{work}/phrasebank/test{repeat}.csv --max-len 128 --epochs 4 --learning-rate 1e-4"),
    Row("phrasebank_mlm", "the same after mlm on business news and a bank's answers",
        f"{_PHRASEBANK} --precision auto --backbone {{start}}",
        {"accuracy": "accuracy", "macro_f1": "macro F1"},
        "with and without", repeats=("0", "1", "2", "3", "4"), seeded=False,
        prepare=financial_texts,
        start="--task mlm --train lines:{work}/corpora/financial.txt --max-len 128 --epochs 3 "
              "--learning-rate 2e-4 --whole-words"),
    Row("conll2003", "CoNLL-2003, test",
        _CONLL, _SPANS, ".885 / .978 / .885; aim .90 / .980 / .909",
        ".924 span F1 (BERT-base, cased)",
        peer="--task tag --train {data}/conll2003_en/eng.train --test "
             "{data}/conll2003_en/eng.testb --max-len 128 --epochs 3 --learning-rate 1e-4"),
    Row("conll2003_mlm", "the same after mlm on cased news, with word dropout",
        f"{_CONLL} --precision auto --word-dropout 0.1 --backbone {{start}}", _SPANS,
        "with and without", prepare=cased_news,
        start="--task mlm --mark-case --train lines:{work}/corpora/news.txt --max-len 128 "
              "--batch-size 16 --epochs 2 --learning-rate 3e-4 --whole-words"),
    Row("stsb_before", "STS-B, test, before training", f"{_STSB} --epochs 0",
        {"spearman": "Spearman"}, "as published", ".820 (all-MiniLM-L6-v2)", repeats=("0",)),
    Row("stsb", "STS-B, test, after training",
        f"{_STSB} --epochs 4 --learning-rate 5e-5 --precision mixed_bfloat16",
        {"spearman": "Spearman"}, ".84; aim .86", ".847 (SBERT-base)", repeats=("0",)),
    Row("chnsenticorp", "ChnSentiCorp (Chinese), test",
        "--task classify --train csv:{data}/chnsenticorp --max-len 160 --epochs 3 "
        f"--learning-rate 1e-4 {_MEAN} {_ME5}",
        {"accuracy": "accuracy"}, "above the baseline; aim .94", f".947 ({_BERT})",
        repeats=("0",), baseline=True),
    Row("tnews", "TNEWS (Chinese), dev",
        f"{_TNEWS} --epochs 2 --learning-rate 1e-4 --pooling mean {_ME5}",
        {"accuracy": "accuracy"}, "above the baseline; aim .55", f".566 ({_BERT}, hidden test)",
        repeats=("0",), baseline=True),
    Row("cluener", "CLUENER (Chinese), dev",
        f"{_CLUENER} --epochs 4 --learning-rate 2e-4 --patience 4 {_ME5}",
        {"span_f1": "span F1"}, "above the baseline; aim .74", f".788 ({_BERT}, hidden test)",
        repeats=("0",), prepare=chinese_names, baseline=True),
    *(Row(f"{name}_{start}", f"{about}, BERT of 4 layers, {words}",
          f"{flags} {_SCRATCH} {backbone}", metrics, "mlm above random by .01", repeats=("0",),
          prepare=chinese_texts, start=_PRETRAINED if start == "mlm" else None)
      for name, about, flags, metrics in (
          ("tnews", "TNEWS", f"{_TNEWS} --epochs 2", {"accuracy": "accuracy"}),
          ("cluener", "CLUENER", f"{_CLUENER} --epochs 6 --patience 6", {"span_f1": "span F1"}))
      for start, words, backbone in (
          ("random", "random start", f"{_NEW} --uncased"),
          ("mlm", "after mlm on both training sets", "--backbone {start}"))),
    Row("questions", "Question pairs (Chinese), LCQMC's other half",
        "--task match --train csv:{work}/questions/train.csv?text=text_a --test "
        "csv:{work}/questions/lcqmc.csv?text=text_a --max-len 96 --epochs 2 --learning-rate 1e-4 "
        f"{_MEAN} {_ME5}",
        {"accuracy": "accuracy", "auroc": "AUROC", "f1": "F1"}, "above the baseline",
        f".894 ({_BERT}, 238,766 pairs)", repeats=("0",), prepare=questions, baseline=True,
        also={"afqmc": "csv:{data}/afqmc/dev.csv?text=text_a"}),
    Row("scope", "Banking77 without 12 intents, test",
        "--task classify --train csv:{work}/scope/train.csv --test csv:{work}/scope/test.csv "
        f"--max-len 64 --epochs 8 --learning-rate 3e-4 --patience 8 {_MEAN}",
        {"accuracy": "accuracy in scope"},
        "AUROC .85 near, .98 far", prepare=held_out_intents,
        outside={"near": "csv:{work}/scope/near.csv?label=", "far": "csv:{work}/scope/far.csv"}),
)
