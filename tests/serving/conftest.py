"""What the server's tests share."""

from pathlib import Path

import pytest

from tests.chromium import browser  # noqa: F401
from tf_pipeline.artifact import Manifest
from tf_pipeline.predictor import Predictor


@pytest.fixture(scope="session")
def manifest(artifact: Path) -> Manifest:
    return Manifest.load(artifact)


@pytest.fixture(scope="session")
def predictor(artifact: Path) -> Predictor:
    return Predictor(artifact, "onnx")


@pytest.fixture(scope="session")
def base(manifest: Manifest) -> str:
    return f"/v1/models/{manifest.name}"
