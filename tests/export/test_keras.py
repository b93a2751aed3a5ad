"""model.keras opens with Keras and this kit's layers alone, on other backends too."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.twin import Twin
from tests.conftest import ROOT
from tf_pipeline.run import Run

OPEN = """
import sys
import numpy as np
import keras
import tf_pipeline.heads
model = keras.saving.load_model(sys.argv[1])
inputs = np.load(sys.argv[2])
outputs = model.predict_on_batch({name: inputs[name] for name in inputs.files})
np.savez(sys.argv[3], **{name: np.asarray(values) for name, values in outputs.items()})
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"export", "serving", "transformers", "keras_hub"}))
"""


def opened(code: str, backend: str, *words: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, text=True, check=False,
                          capture_output=True, env={**os.environ, "KERAS_BACKEND": backend})


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("task", ["classify", *(
    pytest.param(task, marks=pytest.mark.slow) for task in ("embed", "mlm"))])
def test_it_opens_with_keras_and_the_layers(task: str, backend: str, tmp_path: Path,
                                            toy_run: Callable[[str], Path],
                                            toy_weights: Callable[[str], Path]) -> None:
    twin = Twin(Run.load(toy_run(task)))
    encoded = twin.encoder.encode(["the room was lovely", "a", "one [MASK], ten hen"], None, 96)
    inputs = encoded.padded(range(3), 40)
    np.savez(tmp_path / "inputs.npz", **inputs)
    done = opened(OPEN, backend, toy_weights(task) / "model.keras", tmp_path / "inputs.npz",
                  tmp_path / "outputs.npz")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"
    found, expected = np.load(tmp_path / "outputs.npz"), twin.runner(inputs)
    assert set(found.files) == set(twin.task.OUTPUTS["tokens"])
    for name in found.files:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_without_the_layers_keras_says_which_it_lacks(toy_weights: Callable[[str], Path]) -> None:
    code = OPEN.replace("import tf_pipeline.heads\n", "")
    done = opened(code, "tensorflow", toy_weights("classify") / "model.keras")
    assert done.returncode == 1
    assert "bert>Embeddings" in done.stderr


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"])
def test_the_activation_comes_back(activation: str, tmp_path: Path) -> None:
    import keras

    from tf_pipeline.backbone import BertConfig, build

    keras.utils.set_random_seed(1)
    model = build(BertConfig(50, 16, 2, 2, 32, hidden_act=activation, initializer_range=0.5))
    inputs = {"input_ids": np.arange(12, dtype=np.int32).reshape(2, 6),
              "attention_mask": np.ones((2, 6), np.int32),
              "token_type_ids": np.zeros((2, 6), np.int32)}
    expected = model.predict_on_batch(inputs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_layer("layer_1").config.hidden_act == activation
    found = again.predict_on_batch(inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)
