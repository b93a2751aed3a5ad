"""Every command and the Python lines of the README, with `tiny` in the place of `minilm`."""

from pathlib import Path

from tests.conftest import ROOT
from tests.documents import reading

README = ROOT / "README.md"
STAND_INS = {
    "minilm": "tiny", " FOLDER ": " my-bert --max-len 64 ",
    'out="runs/demo"': 'out="runs/demo", backbone="tiny", epochs=1',
}


def test_every_command_runs(tmp_path: Path) -> None:
    with reading(tmp_path, STAND_INS) as desk:
        desk.follow(README, python=False)
    verbs = [line.split()[2:4] for line in desk.ran if line.startswith("python -m")]
    assert [verb for _, verb in verbs[:4]] == ["train", "convert", "verify", "predict"]
    assert ["tf_pipeline", "import"] in verbs
    assert sum(module == "serving" for module, _ in verbs) == 2
    (answer,) = desk.answers
    assert answer["predictions"][0]["label"] in ("negative", "positive")


def test_the_python_lines_run(tmp_path: Path) -> None:
    with reading(tmp_path, STAND_INS) as desk:
        desk.follow(README, shell=False)
    assert (tmp_path / "artifacts/demo/manifest.json").exists()
