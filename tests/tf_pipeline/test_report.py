"""The report through the command: its numbers, what it must not load, and hostile text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import command, opinions, write_csv
from tf_pipeline import metrics, plots, report
from tf_pipeline.cli import main
from tf_pipeline.task import Judgement

PICTURES = {"learning curves", "confusion", "calibration", "length errors"}
HOSTILE = '<script>alert("x")</script><img src=http://evil.example/x.png> & </td> \u202e 😀'


class Page(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.html = path.read_text("utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def pictures(self) -> set[str | None]:
        return {attributes["alt"] for tag, attributes in self.tags if tag == "img"}


def evaluate(*words: str | Path) -> int:
    return main(["evaluate", *map(str, words)])


@pytest.fixture(scope="session")
def sceptic_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opinions of which some are labelled wrong, and a text that attacks the page."""
    rows = opinions(60, seed=7)
    for row in rows[:5]:
        row["label"] = "bad" if row["label"] == "good" else "good"
    # The same text with both labels: whatever the model answers, one of the two is an error.
    rows += [{"text": HOSTILE, "label": label} for label in ("good", "bad")]
    return write_csv(tmp_path_factory.mktemp("sceptic") / "sceptic.csv", rows)


def test_the_page_shows_the_numbers_of_json(run_folder: Path, sceptic_csv: Path, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "report.html"
    assert evaluate(run_folder, "--data", f"csv:{sceptic_csv}", "--report", file, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    page = Page(file)
    for name in ("accuracy", "macro_f1", "loss"):
        assert f"{scores[name]:.4f}" in page.text
    for label, row in scores["table"].items():
        if isinstance(row, dict):
            for value in (row["precision"], row["recall"], row["f1-score"]):
                assert f"{value:.4f}" in page.text, label
    assert page.pictures == PICTURES
    assert f"csv:{sceptic_csv}" in page.text
    assert str(run_folder.parent) not in page.text
    for name in ("tensorflow", "keras", "numpy"):
        assert name in page.text


def test_the_page_loads_nothing(run_folder: Path, sceptic_csv: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert evaluate(run_folder, "--data", f"csv:{sceptic_csv}", "--report", file) == 0
    page = Page(file)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    links = [value for _, attributes in page.tags for name, value in attributes.items()
             if name in ("src", "srcset", "href")]
    assert len(links) == 2 * len(PICTURES)  # light and dark
    assert all(link and link.startswith("data:image/svg+xml;base64,") for link in links)
    assert "url(" not in page.html
    assert "default-src 'none'" in page.html
    assert "http" not in page.html.replace("http-equiv", "").replace("http://evil.example", "")


def test_a_hostile_text_is_shown_and_not_obeyed(run_folder: Path, sceptic_csv: Path,
                                                tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert evaluate(run_folder, "--data", f"csv:{sceptic_csv}", "--report", file) == 0
    page = Page(file)
    assert HOSTILE in page.text
    assert "<script" not in page.html
    assert "evil.example" not in "".join(str(attributes) for _, attributes in page.tags)


def test_an_existing_report_is_refused_before_the_work(
        run_folder: Path, sceptic_csv: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    file.write_text("mine")
    assert evaluate(run_folder, "--data", f"csv:{sceptic_csv}", "--report", file) == 2
    output = capsys.readouterr()
    assert not output.out
    assert f"--report {file} exists" in output.err
    assert "Choose another name" in output.err
    assert file.read_text() == "mine"


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_an_artifact_has_a_report(artifact: Path, sceptic_csv: Path, tmp_path: Path,
                                  runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.html"
    assert evaluate(artifact, "--runtime", runtime, "--data", f"csv:{sceptic_csv}",
                    "--report", file) == 0
    assert f"Wrote {file}" in capsys.readouterr().out
    page = Page(file)
    assert page.pictures == PICTURES - {"learning curves"}  # an artifact keeps no history
    assert f"({runtime} float32)" in page.text


def test_a_notebook_backend_that_is_not_installed_is_not_asked_for(
        artifact: Path, sceptic_csv: Path, tmp_path: Path) -> None:
    # What a Jupyter kernel leaves to the commands that are started in it.
    done = command("tf_pipeline", "evaluate", artifact, "--data", f"csv:{sceptic_csv}",
                   "--report", tmp_path / "report.html", MPLBACKEND="not-installed-here")
    assert done.returncode == 0, done.stderr
    assert Page(tmp_path / "report.html").pictures


def test_one_right_row_makes_a_page_without_errors(run_folder: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "one.csv", [{"text": "the concert was lovely", "label": "good"}])
    file = tmp_path / "report.html"
    assert evaluate(run_folder, "--data", f"csv:{data}", "--report", file) == 0
    page = Page(file)
    assert "None: all 1 answers are right." in page.text
    assert page.pictures == PICTURES


def test_the_surest_errors_come_first(run_folder: Path, sceptic_csv: Path,
                                      tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert evaluate(run_folder, "--data", f"csv:{sceptic_csv}", "--report", file) == 0
    rows = file.read_text("utf-8").split("the most confident first")[1]
    scores = [float(score) for score in re.findall(r'<tr><td class="n">([\d.]+)', rows)]
    assert len(scores) >= 5
    assert scores == sorted(scores, reverse=True)


def test_odd_labels_and_half_letters_make_a_page(tmp_path: Path) -> None:
    labels = ["<script>alert(1)</script>", "积极的", "😀", "", "a" * 200]
    values = np.full((4, 5), 0.1)
    values[:, 1] = 0.6
    judged = [Judgement("half \ud83d", labels[t], labels[1], 0.6, t == 1) for t in (0, 1, 2, 3)]
    scores = metrics.classification(np.array([0, 1, 2, 3]), values, labels)
    findings = plots.Findings(scores, labels, "accuracy", judged, np.array([4, 5, 6, 7]), 64)
    report.write(tmp_path / "report.html",
                 report.page(report.Subject("odd", "run", "csv:x", {}), findings))
    page = Page(tmp_path / "report.html")
    assert "<script" not in page.html
    for text in (labels[0], labels[1], labels[2], "(empty)", "half ?", "Most often mixed up"):
        assert text in page.text


def test_train_writes_the_pictures_and_tensorboard_shows_them(run_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = {name.replace(" ", "_") for name in PICTURES}
    for name in names:
        folder = run_folder if name == "confusion" else run_folder / "logs"
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    events = EventAccumulator(str(run_folder / "logs"))
    events.Reload()
    tags = events.Tags()
    # TensorFlow 2 writes pictures as tensors: width, height, then the PNGs.
    assert names <= set(tags["images"]) | set(tags["tensors"])
    for name in names:
        width, height, png = events.Tensors(name)[0].tensor_proto.string_val
        assert int(width) > 300
        assert int(height) > 300
        assert png[:4] == b"\x89PNG"
    assert "test/accuracy" in tags["tensors"]
