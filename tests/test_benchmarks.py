"""The benchmarks on small data of our own: prepared, measured once, resumed, written."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import baseline, embed_memory, quality, retrieval, rows, shared, training
from benchmarks import input as prepared_input
from tests.conftest import command, opinions, write_conll, write_csv, write_lines
from tf_pipeline import cli


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the results into a folder of the test's own."""
    monkeypatch.setattr(quality, "HERE", tmp_path)
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "quality.json")
    monkeypatch.setattr(quality, "ROWS", (rows.Row(
        "places", "Places, test", "--task classify --train csv:{data}/train.csv --test "
        "csv:{data}/test.csv --backbone tiny --max-len 32 --epochs 1", {"accuracy": "accuracy"},
        ".5", repeats=("0", "1"), outside={"near": "csv:{data}/other.csv"},
        also={"again": "csv:{data}/test.csv"}, baseline=True),))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", *words])
    quality.main()


@pytest.mark.slow
def test_a_row_is_measured_once_and_written(table: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    data = table / "data"
    data.mkdir()
    write_csv(data / "train.csv", opinions(300))
    write_csv(data / "test.csv", opinions(60, seed=1))
    write_csv(data / "other.csv", [{"text": f"{n} + {n}"} for n in range(30)])
    words = ("--data", str(data), "--work", str(table / "work"), "--repeats", "1", "--commit", "x")
    run(monkeypatch, *words)
    assert "places 0 ours" in capsys.readouterr().out
    (found,) = json.loads((table / "quality.json").read_text())
    assert found["command"].startswith("--task classify --train csv:DIR/train.csv")
    assert {"accuracy", "near_auroc", "calibration_error_after"} <= set(found["scores"])
    assert found["scores"]["again_accuracy"] == found["scores"]["accuracy"]
    page = (table / "quality.md").read_text()
    ours = f"{found['scores']['accuracy']:.4f}, 1 of 2 runs"
    assert f"| Places, test | accuracy | {ours} | - | - | - | .5 |" in page
    run(monkeypatch, *words, "--baseline")
    (classical,) = (r["scores"] for r in json.loads((table / "quality.json").read_text())
                    if r["side"] == "baseline")
    assert classical["accuracy"] > classical["majority"] > 0
    assert (f"| Places, test | accuracy | {ours} | - | {classical['accuracy']:.4f} "
            f"({classical['majority']:.4f}) | - | .5 |") in (table / "quality.md").read_text()
    assert str(data) not in page
    shutil.rmtree(data)  # what stands in quality.json is not measured again
    run(monkeypatch, *words)
    assert "places 0 ours" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_row_may_start_from_a_training_before_it(table: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(table / "train.csv", opinions(200))
    write_lines(table / "corpus.txt", [row["text"] for row in opinions(200)])
    start = ("--task mlm --train lines:{data}/corpus.txt --backbone tiny --epochs 1 --max-len 32 "
             "--batch-size 8")
    monkeypatch.setattr(quality, "ROWS", (rows.Row(
        "adapted", "Adapted", "--task classify --train csv:{data}/train.csv --backbone {start} "
        "--max-len 32 --epochs 1", {"accuracy": "accuracy"}, "-", repeats=("0", "1"),
        start=start),))
    run(monkeypatch, "--data", str(table), "--work", str(table / "work"), "--commit", "x")
    assert "adapted 1 ours" in capsys.readouterr().out
    (before,) = (table / "work" / "runs").iterdir()  # one for both
    assert json.loads((before / "run.json").read_text())["task"] == "mlm"
    for found in json.loads((table / "quality.json").read_text()):
        assert found["command"].endswith(
            f"--backbone START --max-len 32 --epochs 1 (START: {start.format(data='DIR')})")


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_every_rows_flags_are_known(row: rows.Row, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in filter(None, (row.start, row.train)):
        words = flags.format(data="nowhere", work="nowhere", models="nowhere", start="nowhere",
                             repeat="0").split()
        assert cli.main(["train", *words, "--out", "nowhere/run"]) == 2
        assert "nowhere" in capsys.readouterr().err  # no flag is refused, only the folder
    for name in row.metrics:
        assert name.replace("_", "").isalnum()


@pytest.mark.parametrize(("words", "message"), [
    (("--only", "typo"), "--only names 'typo'; allowed: sst2, "),
    (("--peer", "/nowhere/python"), "--peer /nowhere/python is no program"),
    (("--only", "phrasebank"), "--data lacks .*sentences_50agree.csv"),
    (("--only", "cluener"), "--data lacks .*cluener/train.jsonl"),
])
def test_wrong_flags_are_named(words: tuple[str, ...], message: str, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "quality.json")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--data", str(tmp_path), "--work", str(tmp_path), "--commit", "x", *words)
    assert re.search(message, f"{stopped.value} {capsys.readouterr().err}")
    assert not list(tmp_path.iterdir())


def test_five_folds_hold_each_text_once_in_a_test(tmp_path: Path) -> None:
    texts = opinions(60)
    write_csv(tmp_path / "financial_phrasebank/sentences_50agree.csv", texts)
    rows.folds(tmp_path, tmp_path)
    parts = [{part: rows.read(tmp_path / f"phrasebank/{part}{number}.csv")
              for part in ("train", "test")} for number in range(5)]
    assert sorted(r["text"] for part in parts for r in part["test"]) == sorted(
        r["text"] for r in texts)
    assert all(len(part["train"]) + len(part["test"]) == 60 for part in parts)


def test_held_out_intents_are_in_no_training_text(tmp_path: Path) -> None:
    intents = [{"text": f"{n} of {n % 20}", "label": f"intent {n % 20}"} for n in range(60)]
    for part in ("train", "test"):
        write_csv(tmp_path / f"banking77/{part}.csv", intents)
    write_csv(tmp_path / "ag_news/test.csv", opinions(30))
    rows.held_out_intents(tmp_path, tmp_path)
    found = {name: rows.read(tmp_path / f"scope/{name}.csv")
             for name in ("train", "test", "near", "far")}
    known = {row["label"] for row in found["train"]}
    assert len(known) == 8
    assert {row["label"] for row in found["test"]} == known
    assert len({row["label"] for row in found["near"]} - known) == 12
    assert len(found["far"]) == 30


def test_chinese_names_are_cut_into_characters(tmp_path: Path) -> None:
    (tmp_path / "cluener").mkdir()
    row = {"text": "他在北京的ABC公司", "label": {"address": {"北京": [[2, 3]]},
                                          "company": {"ABC公司": [[5, 9]]}}}
    for part in ("train", "dev"):
        (tmp_path / f"cluener/{part}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    rows.chinese_names(tmp_path, tmp_path)
    assert (tmp_path / "cluener/dev.txt").read_text("utf-8").split("\n") == [
        "他 O", "在 O", "北 B-address", "京 I-address", "的 O", "ABC B-company", "公 I-company",
        "司 I-company", ""]


def test_corpora_hold_texts_once_and_none_of_a_test(tmp_path: Path) -> None:
    (tmp_path / "tnews").mkdir()
    write_csv(tmp_path / "tnews/train.csv", [{"text": "题"},
                                              *({"text": "两\n次"} for _ in range(2))])
    write_csv(tmp_path / "tnews/dev.csv", [{"text": "试题"}])
    (tmp_path / "cluener").mkdir()
    for part, text in (("train", "来"), ("dev", "试")):
        write_lines(tmp_path / f"cluener/{part}.jsonl", [json.dumps({"text": text, "label": {}})])
    rows.chinese_texts(tmp_path, tmp_path)
    assert (tmp_path / "corpora/chinese.txt").read_text("utf-8").splitlines() == [
        "题", "两 次", "来"]


def test_news_keep_their_capitals_and_hold_only_training_documents(tmp_path: Path) -> None:
    for part in ("test", "train_5k", "train_10k_description"):
        (tmp_path / "ag_news").mkdir(exist_ok=True)
        write_csv(tmp_path / f"ag_news/{part}.csv", [{"text": f"News of {part}"},
                                                     {"text": "no capitals"}, {"text": "Twice"}])
    (tmp_path / "conll2003_en").mkdir()
    write_lines(tmp_path / "conll2003_en/eng.train", [
        "-DOCSTART- -X- O O", "", "Zoe NNP I-NP I-PER", "left VBD I-VP O", "", "Now RB O O", "",
        "-DOCSTART- -X- O O", "", "Rain NN I-NP O"])
    write_lines(tmp_path / "conll2003_en/eng.testb", ["Xanten NNP I-NP I-LOC"])
    rows.cased_news(tmp_path, tmp_path)
    assert (tmp_path / "corpora/news.txt").read_text("utf-8").splitlines() == [
        "News of test", "Twice", "News of train_5k", "News of train_10k_description",
        "Zoe left Now", "Rain"]


def test_the_memory_of_a_command_is_not_its_parents() -> None:
    held = b"x" * (400 << 20)
    assert shared.peak([sys.executable, "-c", "pass"]) < 100
    assert 300 < shared.peak([sys.executable, "-c", "b'x' * (300 << 20)"]) < 400
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        shared.peak([sys.executable, "-c", "1 / 0"])
    assert len(held) == 400 << 20


@pytest.mark.slow
def test_speed_is_measured_with_and_without_levers(tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{row['text']}\t{row['label']}" for row in opinions(130)]
    (tmp_path / "sst2").mkdir()
    write_lines(tmp_path / "sst2/train.tsv", ["sentence\tlabel", *lines])
    chosen = training.phrases(tmp_path, 100)
    assert len({row["text"] for row in chosen} & {row["text"] for row in opinions(130)}) > 50
    kind = training.KINDS[0]
    for name in ("phrases", "phrases-test"):
        write_csv(tmp_path / f"{name}.csv", chosen)
    speed, most = training.ours(kind, tmp_path, "float32")
    assert speed > 1
    assert most > training.imported() > 100
    assert training.ours(kind, tmp_path, "bfloat16", "fused")[0] > 1
    monkeypatch.setattr(training, "ours", lambda *_: (300.0, 1500))
    monkeypatch.setattr(training, "theirs", lambda *_: (200.0, 1600, 600))
    monkeypatch.setattr(training, "imported", lambda: 700)
    page = training.compared(kind, tmp_path, "float32", "python", 2)
    assert "| ours | 300, 300 | 300 | 700 | 1,500 | 800 |" in page
    assert "| peer | 200, 200 | 200 | 600 | 1,600 | 1,000 |" in page
    assert "ratio: 1.50 (goal 1.3, aim 2)" in page


@pytest.mark.parametrize("lever", ["lazy_rows", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("lengths", "one_length"))])
def test_what_a_lever_leaves_still_learns(lever: str, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "rows.csv", opinions(200))
    words = ["--task", "classify", "--train", f"csv:{rows}", "--backbone", "tiny", "--epochs", "1",
             "--max-len", "32", "--batch-size", "8", "--out", str(tmp_path / "run")]
    done = command("benchmarks.training", "without", lever, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())["speed"]["steps"] > 15


def test_long_texts_are_articles_of_one_topic(tmp_path: Path) -> None:
    rows = [{"text": f"{label} {n}", "label": label} for n in range(9) for label in "ab"]
    write_csv(tmp_path / "ag_news/train_5k.csv", rows)
    for row in training.long(tmp_path, 5):
        parts = row["text"].split()
        assert parts[::2] == [row["label"]] * 3
        assert len(set(parts[1::2])) == 3


def test_questions_that_train_do_not_test(tmp_path: Path) -> None:
    for name, count in (("afqmc/train", 3), ("lcqmc/dev", 5)):
        write_csv(tmp_path / f"{name}.csv", [{"text_a": f"{name} {n}", "text_b": "b", "label": "1"}
                                             for n in range(count)])
    rows.questions(tmp_path, tmp_path)
    train, test = (rows.read(tmp_path / f"questions/{name}.csv") for name in ("train", "lcqmc"))
    assert (len(train), len(test)) == (6, 2)
    assert not {r["text_a"] for r in train} & {r["text_a"] for r in test}


def test_the_baseline_of_pairs_and_of_tags(tmp_path: Path) -> None:
    pairs = [{"text": row["text"], "text_b": row["text"] if n % 2 else other["text"],
              "label": str(n % 2)} for n, (row, other) in enumerate(
                  zip(opinions(200), opinions(200, seed=1), strict=True))]
    write_csv(tmp_path / "pairs.csv", pairs)
    sentences = [f"{'Zoe' if n % 3 else 'Max'} saw {'Kim' if n % 2 else 'nobody'} again".split()
                 for n in range(100)]
    names = [(words, ["B-PER" if word.istitle() else "O" for word in words])
             for words in sentences]
    write_conll(tmp_path / "names.txt", names)
    same = rows.Row("same", "", "--task match --train csv:{data}/pairs.csv --test "
                    "csv:{data}/pairs.csv", {"accuracy": "", "auroc": "", "f1": ""}, "")
    found = baseline.measure(same, {"data": str(tmp_path)})["scores"]
    assert found["majority"] == 0.5
    assert min(found["accuracy"], found["auroc"], found["f1"]) > 0.95
    tags = rows.Row("tags", "", "--task tag --train conll:{data}/names.txt --test "
                    "conll:{data}/names.txt", {"span_f1": ""}, "")
    assert baseline.measure(tags, {"data": str(tmp_path)})["scores"] == {"span_f1": 1.0}


def test_questions_and_answers_are_split_by_answer(tmp_path: Path) -> None:
    faqs = [{"question": f"q{n}", "answer": f"a{n % 10}"} for n in range(30)]
    write_csv(tmp_path / "faqs.csv", [*faqs, {"question": "q0", "answer": "a1"}])
    found = retrieval.bank_faqs(tmp_path, tmp_path / "work" / "train.csv")
    learned = rows.read(tmp_path / "work" / "train.csv")
    assert len(found.documents) == 10
    assert len({row["text_b"] for row in learned}) == 7
    assert not {row["text"] for row in learned} & set(found.queries)
    for query, relevant in zip(found.queries, found.relevant, strict=True):
        assert [found.documents[i] for i in relevant] == [f"a{int(query[1:]) % 10}"]


def test_judged_documents_are_found_by_their_ids(tmp_path: Path) -> None:
    for name, ids in (("corpus", "abc"), ("queries", "12")):
        (tmp_path / f"{name}.jsonl").write_text("".join(
            json.dumps({"_id": i, "text": f"text {i}"}) + "\n" for i in ids))
    (tmp_path / "qrels.tsv").write_text("query\tdocument\tgrade\n1\tc\t2\n1\ta\t0\n2\tb\t0\n")
    found = retrieval.cranfield(tmp_path)
    assert (found.queries, found.relevant) == (["text 1"], [{2: 2.0}])


@pytest.mark.parametrize(("missing", "python", "message"), [
    ("faqs.csv", sys.executable, "--data lacks .*faqs.csv"),
    ("", "/nowhere/python", "--peer /nowhere/python is no program"),
    ("", sys.executable, "No module named 'bm25s'")])
def test_what_retrieval_lacks_is_named(missing: str, python: str, message: str, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    if not missing:
        write_csv(tmp_path / "bank_faqs/faqs.csv",
                  [{"question": f"q{n}", "answer": f"a{n % 10}"} for n in range(30)])
        (tmp_path / "cranfield").mkdir()
        for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
            (tmp_path / "cranfield" / name).write_text("")
        for name in retrieval.SETTINGS:  # as if they had been trained before
            folder = tmp_path / f"work/runs/embed-{name}"
            folder.mkdir(parents=True)
            (folder / "run.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["retrieval", "--data", str(tmp_path), "--work",
                                      str(tmp_path / "work"), "--peer", python])
    with pytest.raises(SystemExit, match=message):
        retrieval.main()


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_memory, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["embed_memory", "--backbone", "tiny", "--batch", "64",
                                      "--part", "16"])
    embed_memory.main()
    page = (tmp_path / "embed_memory.md").read_text()
    small, large = (int(found.replace(",", "")) for found in re.findall(r"\| ([\d,]+) \|$", page,
                                                                        re.MULTILINE))
    assert 100 < small < 10_000
    assert f"ratio: {large / small:.2f}" in page


@pytest.mark.slow
def test_prepared_data_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sst2").mkdir()
    write_lines(tmp_path / "sst2/train.tsv", [
        "sentence\tlabel", *(f"{row['text']}\t{row['label']}" for row in opinions(130))])
    monkeypatch.setattr(prepared_input, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", [
        "input", "--data", str(tmp_path), "--texts", "9000", "--few", "600", "--steps", "3",
        "--backbone", "tiny", "--batches", "50"])
    prepared_input.main()
    page = (tmp_path / "input.md").read_text()
    assert "| 600 |" in page
    assert "| 9,000 |" in page
    assert float(re.search(r": ([\d.]+) million real tokens", page)[1]) > 0.001
    assert float(re.search(r"ratio: ([\d.]+)", page)[1]) < 1.1
