"""Imports that are heavy or can kill the process, tried in a process of their own."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..install import ROOT

TIMEOUT_S = 60.0  # for a chain; the first import after an install writes byte code
# Distribution -> statements; `value` is shown. One process runs a chain, since TensorFlow takes
# five seconds, and a new one goes on behind a failure.
CHAINS: tuple[dict[str, str], ...] = (
    {
        "tensorflow": "import tensorflow as it",
        "keras": "from tf_pipeline import accelerator, config\n"
                 "value = accelerator.choose(config.TrainConfig('classify', '')).name",
        "tensorflow-text": "import tensorflow_text as it",  # imports keras
        "tf2onnx": "import tf2onnx as it",
    },
    {
        "numpy": "import numpy as it",
        "ml-dtypes": "import ml_dtypes as it",
        "onnx": "import onnx as it",
        "onnxruntime": "import onnxruntime as it",
        "ai-edge-litert": "from ai_edge_litert import interpreter",
        "tokenizers": "import tokenizers as it",
    },
)
_FIRST = "tensorflow"  # without it the rest of its chain cannot be told
_CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
for name, code in json.loads(sys.argv[2]).items():
    print("doctor:" + json.dumps(["start", name]), flush=True)
    scope = {"value": ""}
    try:
        exec(code, scope)
    except BaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = type(error).__name__ + ": " + (lines or ["no message"])[0]
        print("doctor:" + json.dumps(["failed", cause]), flush=True)
        raise SystemExit(1)
    value = scope["value"] or getattr(scope.get("it"), "__version__", "")
    print("doctor:" + json.dumps(["done", value]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """How an import ended: what it said, and if not `ok` the cause in one line."""

    ok: bool
    text: str


def try_all(present: set[str]) -> dict[str, Outcome]:
    """Try the imports of the distributions that are installed; gives an outcome for each tried."""
    chains = [{k: v for k, v in chain.items() if k in present} for chain in CHAINS
              if _FIRST not in chain or _FIRST in present]
    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(len(chains)) as pool:
        for part in pool.map(_try_chain, chains):
            outcomes |= part
    return outcomes


def _try_chain(chain: dict[str, str]) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    left = dict(chain)
    while left:
        outcomes |= _run(left)
        left = {name: code for name, code in left.items() if name not in outcomes}
        if _FIRST in outcomes and not outcomes[_FIRST].ok:
            break
    return outcomes


def _run(chain: dict[str, str]) -> dict[str, Outcome]:
    """Run a chain until its first failure; gives at least one outcome."""
    command = [sys.executable, "-c", _CHILD, str(ROOT), json.dumps(chain)]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, env=environment,
                              check=False)
        output, ended = done.stdout, _ending(done.returncode)
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"gave no answer in {TIMEOUT_S:g} s"
    outcomes: dict[str, Outcome] = {}
    name = next(iter(chain))
    for line in output.decode("utf-8", "replace").splitlines():
        if not line.startswith("doctor:"):
            continue
        event, text = json.loads(line.removeprefix("doctor:"))
        if event == "start":
            name = text
        else:
            outcomes[name] = Outcome(event == "done", text[:200])
    if name not in outcomes:
        outcomes[name] = Outcome(False, ended)
    return outcomes


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    return f"the process was killed by {signal.Signals(-code).name}"
