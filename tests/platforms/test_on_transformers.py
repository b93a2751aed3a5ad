"""transformers' own PyTorch classes open the folder and give the logits of Keras."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.twin import Twin
from tf_pipeline import plugins, tasks
from tf_pipeline.run import Run

pytestmark = pytest.mark.platforms
PROGRAM = Path(__file__).with_name("answer_transformers.py")
TEXTS = ["the room was lovely", "Café, honestly — 😀", "a", "Quentin Quist left Jena ."]


@pytest.mark.parametrize("task", plugins.names(tasks))
def test_the_folder_opens_as_it_is(task: str, toy_run: Callable[[str], Path],
                                   toy_weights: Callable[[str], Path],
                                   environment: Callable[[str], Path], tmp_path: Path) -> None:
    twin = Twin(Run.load(toy_run(task)))
    pair = len(twin.task.text_fields) == 2
    texts = [[text, "lovely !"] for text in TEXTS] if pair else TEXTS
    done = subprocess.run([environment("transformers"), PROGRAM, toy_weights(task),
                           tmp_path / "found.npz"], input=json.dumps(texts), text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"missing_keys": [], "unexpected_keys": []}
    found = np.load(tmp_path / "found.npz")
    for i, text in enumerate(texts):
        ids = found[f"ids{i}"]
        parts = text if pair else [text]
        expected = twin.encoder.encode([parts[0]], parts[1:] or None, 96)
        assert ids.tolist() == expected.ids.tolist()
        inputs = {"input_ids": ids[None], "attention_mask": np.ones_like(ids)[None],
                  "token_type_ids": expected.types[None]}
        answers = twin.runner({name: values.astype(np.int32) for name, values in inputs.items()})
        wanted = answers["last_hidden_state" if task == "embed" else "logits"][0]
        np.testing.assert_allclose(found[f"out{i}"], wanted, atol=1e-4)
