"""One tiny run and one artifact, trained and exported for real once a session."""

import csv
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# Both before anything imports TensorFlow. oneDNN as the command line sets it: tests and the
# processes they start would round differently otherwise, by which test came first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Ctrl-C reaches the programs under test also where the tests run in a shell's background, which
# has it ignored: by them too then.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
# Their tests take minutes. Begun last, such a file keeps one process busy when the others are done.
LONG = ("test_docs", "test_resuming", "test_on_a_site", "test_accelerator", "test_benchmarks",
        "test_convert")
# Sentences of our own: short and long, plain and not, each with an opinion in one word.
PLACES = ("the kitchen", "our room", "this little café", "the night bus", "my new phone",
          "the concert", "their website", "the garden — in May —", "room № 12", "the manual")
GOOD = ("wonderful", "lovely", "splendid", "a joy", "very good")
BAD = ("awful", "dreadful", "broken", "a mess", "rubbish")
FRAMES = ("{} was {}", "{} was {}, honestly", "I think {} was {} from the first day to the last",
          "{} was {} 😀", "We came back because {} was {}, and we told all our friends about it!")


def opinions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Make labelled sentences; the same seed gives the same ones."""
    choose = random.Random(seed)
    rows = []
    for number in range(count):
        label = choose.choice(("good", "bad"))
        word = choose.choice(GOOD if label == "good" else BAD)
        frame = choose.choice(FRAMES)
        rows.append({"text": f"{frame.format(choose.choice(PLACES), word)} ({number})",
                     "label": label})
    return rows


def shades(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Add to `opinions` several labels and a number, by signs that even `tiny` learns soon."""
    signs = {"loud": "!", "pause": ",", "smile": "😀"}
    rows = []
    for row in opinions(count, seed):
        found = [label for label, sign in signs.items() if sign in row["text"]]
        rows.append({"text": row["text"], "labels": "|".join(found),
                     "score": str(1.5 + 2 * ("!" in row["text"]) + ("," in row["text"]))})
    return rows


def pairs(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Make pairs that fit where a question meets an exclamation; single texts do not tell."""
    choose = random.Random(seed)
    rows = []
    for number in range(count):
        text, text_b = choose.choice("?."), choose.choice("!;")
        rows.append({"text": f"{choose.choice(PLACES)} {text} {number}",
                     "text_b": f"{choose.choice(GOOD + BAD)} {text_b}",
                     "label": "fits" if text + text_b == "?!" else "does not fit"})
    return rows


def travels(count: int, seed: int = 0) -> list[tuple[list[str], list[str]]]:
    """Make tagged sentences: tokens and BIO tags of people and places."""
    choose = random.Random(seed)
    sentences = []
    for _ in range(count):
        person = choose.choice((["Quentin", "Quist"], ["Zoe"], ["Quirin"], ["Zacharias", "Zoll"]))
        place = choose.choice((["Xanten"], ["Jena"], ["Jülich"], ["Xian"]))
        words = [(choose.choice(("Then", "Today", "And")), "O"),
                 *zip(person, ("B-PER", "I-PER"), strict=False),
                 (choose.choice(("went to", "left", "liked")), "O"),
                 *zip(place, ("B-LOC", "I-LOC"), strict=False), (choose.choice(".!"), "O")]
        if choose.random() < 0.3:
            words = [("Nothing", "O"), ("was", "O"), ("there", "O"), (".", "O")]
        plain = [(part, tag) for word, tag in words for part in word.split()]
        sentences.append(([w for w, _ in plain], [t for _, t in plain]))
    return sentences


def routes() -> list[dict[str, str]]:
    """Make questions with their answers: pairs that share a place and nothing else."""
    kinds = ("red", "old", "tiny", "royal", "quiet", "golden", "wooden", "stone", "silver",
             "hidden", "broad", "green", "sunny", "upper", "lower", "northern")
    places = ("bridge", "tower", "market", "garden", "library", "harbour", "museum", "station",
              "castle", "bakery", "theatre", "school", "mill", "lake", "chapel", "stadium")
    rows = [{"text": f"Where is the {kind} {place}?",
             "text_b": f"A bus leaves for the {kind} {place}."}
            for kind in kinds for place in places]
    random.Random(0).shuffle(rows)
    return rows


def rhymes(count: int, seed: int = 0) -> list[str]:
    """Make lines of which each hidden letter can be told from the others: verses come back."""
    choose = random.Random(seed)
    verses = ("one bun", "two cow", "six fox", "ten hen", "odd cat", "red dog", "his ant")
    return [", ".join(3 * choose.sample(verses, 2)) for _ in range(count)]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def write_conll(path: Path, sentences: list[tuple[list[str], list[str]]]) -> Path:
    path.write_text("\n\n".join("\n".join(f"{w} {t}" for w, t in zip(*s, strict=True))
                                for s in sentences) + "\n", "utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def command(module: str, *words: str | Path, timeout_s: float = 300,
            **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE` in a process of its own, as a user does."""
    return subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=ROOT, text=True,
                          capture_output=True, timeout=timeout_s, check=False,
                          env={**os.environ, **environment})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first: `make test` gives files out to processes in this order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    """Put the root logger back: a command line run in this process sends it to its own stderr."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def opinions_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "opinions.csv", opinions(1000))


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of what all test processes share (`make test` starts two)."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def toy_run(toys: Path, tmp_path_factory: pytest.TempPathFactory,
            opinions_csv: Path) -> Callable[[str], Path]:
    """Train `tiny` on a task, once a session."""
    from tf_pipeline import TrainConfig, fit

    folder = tmp_path_factory.mktemp("data")
    epochs = {"multilabel": 12, "regress": 8, "mlm": 20}
    rates = {"multilabel": 3e-3, "mlm": 1e-2}  # some seeds get stuck at 5e-3
    both = write_csv(folder / "shades.csv", shades(1000))
    data = {"classify": f"csv:{opinions_csv}",
            "embed": f"csv:{write_csv(folder / 'routes.csv', routes())}",
            "match": f"csv:{write_csv(folder / 'pairs.csv', pairs(1000))}",
            "multilabel": f"csv:{both}?score=", "regress": f"csv:{both}?labels=",
            "tag": f"conll:{write_conll(folder / 'travels.conll', travels(1000))}",
            "mlm": f"lines:{write_lines(folder / 'lines.txt', rhymes(1000))}"}

    def make(task: str) -> Path:
        out = toys / "runs" / task
        with FileLock(toys / f"run-{task}.lock"):
            if not (out / "run.json").exists():
                fit(TrainConfig(task=task, train=data[task], out=out, backbone="tiny",
                                max_len=96, epochs=epochs.get(task, 4), batch_size=16,
                                learning_rate=rates.get(task, 5e-3), patience=12))
        return out

    return make


@pytest.fixture(scope="session")
def run_folder(toy_run: Callable[[str], Path]) -> Path:
    return toy_run("classify")


@pytest.fixture(scope="session")
def toy_artifact(toys: Path, toy_run: Callable[[str], Path]) -> Callable[[str], Path]:
    """Publish every format of a task's toy run, once a session. Tests must not change it."""
    from export import ConvertOptions
    from export.pipeline import build
    from tf_pipeline import Run

    def make(task: str) -> Path:
        out = toys / "artifacts" / task
        with FileLock(toys / f"artifact-{task}.lock"):
            if not out.exists():
                build(Run.load(toy_run(task)), ConvertOptions(out=out))
        return out

    return make


@pytest.fixture(scope="session")
def toy_weights(toys: Path, toy_run: Callable[[str], Path]) -> Callable[[str], Path]:
    """Publish a task's toy run as model.safetensors and model.keras, once a session."""
    from export import ConvertOptions
    from export.pipeline import build
    from tf_pipeline import Run

    def make(task: str) -> Path:
        out = toys / "weights" / task
        with FileLock(toys / f"weights-{task}.lock"):
            if not out.exists():
                build(Run.load(toy_run(task)),
                      ConvertOptions(out=out, formats=("safetensors", "keras")))
        return out

    return make


@pytest.fixture(scope="session")
def artifact(toy_artifact: Callable[[str], Path]) -> Path:
    return toy_artifact("classify")


def wait_for_step(folder: Path, step: int) -> None:
    """Wait until a training has written a checkpoint of this step or a later one."""
    end = time.monotonic() + 120
    while not any(int(p.stem.partition("-")[2]) >= step for p in folder.glob("step-*.safetensors")):
        assert time.monotonic() < end, f"no checkpoint of step {step} came"
        time.sleep(0.02)
