"""Ten thousand requests of which most are broken: none is a 5xx, and the server stays as it was."""

import copy
import http.client
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.servers import resident_mib
from serving.store import Store
from tests.serving.test_serving_cli import served, stop

COUNT = 10_000
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 1.5, 1e308, "", "a", "\x00", "\ud83d", "é" * 500, "[MASK] [SEP]",
    "a " * 3000, [], {}, [[]], [{}], [None], {"": ""}, [1, "a"], ["a"] * 300, {"b64": "YQ=="},
    {"text": {"text": "a"}}, [[[[["a"]]]]])
HEADERS: tuple[dict[str, str], ...] = (
    {}, {"X-Request-Timeout-Ms": "60000"}, {"X-Request-Timeout-Ms": "-1"},
    {"X-Request-Timeout-Ms": "9" * 50}, {"Content-Type": "text/plain"}, {"Accept": "text/html"},
    {"Content-Encoding": "br"}, {"Inference-Header-Content-Length": "7"}, {"Expect": "x"})


def bodies(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Give right requests for a model, with their paths."""
    pair = name == "match"
    text, row = ("a garden", ["a garden", "a room"] if pair else "a garden")
    fields = {"text": text, "text_b": text} if pair else {"text": text}
    ids = {"input_ids": [[2, 3]], "attention_mask": [[1, 1]], "token_type_ids": [[0, 0]]}
    base = f"/v1/models/{name}"
    tensors = [{"name": key, "datatype": "BYTES", "shape": [1], "data": [value]}
               for key, value in fields.items()]
    return [(f"{base}:answer", fields), (f"{base}:answer", {"texts": [row, row]}),
            (f"{base}:answer", {"texts": [row], "file": "onnx/model.onnx"}),
            (f"{base}:predict", {"instances": [fields]}),
            (f"{base}:predict", {"inputs": {key: [value] for key, value in fields.items()}}),
            (f"{base}:predict", {"inputs": ids, "signature_name": "tokens"}),
            (f"{base}/versions/1:predict", {"instances": [fields]}),
            (f"{base}/labels/stable:answer", fields),
            (f"/v2/models/{name}/infer", {"inputs": tensors, "id": "1"}),
            (f"/v2/models/{name}/versions/1/infer", {"inputs": tensors}),
            ("/v2/repository/index", {"ready": True})]


class Fuzzer:
    """Breaks requests; the same seed breaks them in the same way."""

    def __init__(self, seed: int):
        self.choose = random.Random(seed)

    def places(self, node: Any) -> list[tuple[Any, Any]]:
        """List what can be replaced: containers with a key or index."""
        keys = list(node) if isinstance(node, dict) else range(len(node))
        found = [(node, key) for key in keys]
        for _, key in list(found):
            if isinstance(node[key], dict | list):
                found += self.places(node[key])
        return found

    def document(self, body: dict[str, Any]) -> Any:
        """Replace, remove or add values."""
        body = copy.deepcopy(body)
        for _ in range(self.choose.randint(0, 2)):
            places = self.places(body)
            if not places:
                return self.choose.choice(STRANGE)
            node, key = self.choose.choice(places)
            act = self.choose.randrange(3)
            if act == 0:
                node[key] = copy.deepcopy(self.choose.choice(STRANGE))
            elif act == 1:
                del node[key]
            elif isinstance(node, dict):
                node[self.choose.choice(("text", "file", "x", "", "signature_name"))] = (
                    copy.deepcopy(self.choose.choice(STRANGE)))
            else:
                node.append(copy.deepcopy(self.choose.choice(STRANGE)))
        return body

    def bytes(self, body: bytes) -> bytes:
        """Change, cut or repeat bytes, of one request in four."""
        for _ in range(self.choose.randint(1, 4) if self.choose.random() < 0.25 else 0):
            at = self.choose.randrange(len(body) + 1)
            body = self.choose.choice((
                body[:at], body[at:], body[:at] + bytes([self.choose.randrange(256)]) + body[at:],
                body[:at] + b'"' + body[at:], body[:at] + body[at // 2:], body + b"}" * 5))
        return body

    def path(self, path: str) -> str:
        """Change a character, of one request in twenty."""
        if self.choose.random() > 0.05:
            return path
        at = self.choose.randrange(1, len(path))
        sign = quote(self.choose.choice("a:/é?%\x00\N{SNOWMAN}"), safe="")
        return path[:at] + sign + path[at + 1:]


@pytest.mark.slow
def test_broken_requests_are_the_clients_fault(toy_artifact: Callable[[str], Path],
                                               tmp_path: Path) -> None:
    models = Store(tmp_path / "models")
    for task in ("classify", "match", "tag"):
        models.add(toy_artifact(task))
        models.label(task, "stable", 1)
    right = [one for task in ("classify", "match", "tag") for one in bodies(task)]
    fuzzer, counts, sizes = Fuzzer(0), Counter[int](), []
    with served(models.folder, "--variant", "float32") as (process, url, _):
        address = url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=60)
        for number in range(COUNT):
            path, body = fuzzer.choose.choice(right)
            content = fuzzer.bytes(json.dumps(fuzzer.document(body)).encode())
            method = fuzzer.choose.choice(("POST",) * 15 + ("GET", "PUT", "DELETE"))
            headers = fuzzer.choose.choice(HEADERS) if fuzzer.choose.random() < 0.1 else {}
            connection.request(method, fuzzer.path(path), content, headers)
            answer = connection.getresponse()
            said = answer.read()
            counts[answer.status] += 1
            assert answer.status < 500, (path, content, said)
            if answer.status >= 400 and answer.headers.get_content_type() == "application/json":
                assert json.loads(said)["error"]
            if number in (COUNT // 10, COUNT - 1):
                sizes.append(resident_mib(process.pid))
        for path, body in right:  # what was right is still answered
            connection.request("POST", path, json.dumps(body))
            answer = connection.getresponse()
            assert answer.status == 200, (path, answer.read())
            answer.read()
        rest = stop(process)
    print(sorted(counts.items()), sizes)
    assert "Traceback" not in rest
    assert counts[200] > COUNT / 20
    assert sum(counts.values()) - counts[200] > COUNT / 4
    assert sizes[1] < sizes[0] + 20
