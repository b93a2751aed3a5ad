"""Requests that schemathesis makes up from /openapi.json, right and wrong ones: none is a 5xx."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.store import Store
from tests.serving.test_serving_cli import post, served, stop

pytestmark = pytest.mark.platforms
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance")


def test_made_up_requests(environment: Callable[[str], Path], toy_artifact: Callable[[str], Path],
                          tmp_path: Path) -> None:
    python = environment("schemathesis")
    models = Store(tmp_path / "models")
    for task in ("classify", "match", "tag"):
        models.add(toy_artifact(task))
    models.label("classify", "stable", 1)
    with served(models.folder, "--variant", "int8") as (process, url, _):
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=20) as answer:
            text = json.dumps(json.load(answer))
        # A deadline of some milliseconds rightly ends in a 504.
        assert text.count('"minimum": 1') > 0
        document = tmp_path / "openapi.json"
        document.write_text(text.replace('"minimum": 1', '"minimum": 60000'))
        done = subprocess.run(
            [python.with_name("schemathesis"), "run", document, "--url", url, "-n", "20", "-c",
             ",".join(CHECKS), "--seed", "1", "--continue-on-failure"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, done.stdout[-5000:]
        generated = re.search(r"(\d+) generated", done.stdout)
        assert generated
        assert int(generated[1]) > 500
        status, body = post(f"{url}/v1/models/tag:answer", {"text": "Zoe left Jena ."})
        assert status == 200
        assert body["answers"][0]["spans"]
        assert "Traceback" not in stop(process)
