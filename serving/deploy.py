"""A folder that TF Serving starts from: `python -m serving tf-serving artifacts/reviews`.

    models/NAME/VERSION/    the SavedModels, as TF Serving counts versions
    models/models.config    which of them are served
    models/batching.config  how requests are put together
    compose.yaml            for `docker compose up`
    Dockerfile, kubernetes.yaml  an image that holds the models, and what runs it
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tf_pipeline.artifact import Graph, Manifest
from tf_pipeline.errors import UserError
from tf_pipeline.files import disk_errors, reserve, sync
from tf_pipeline.text import INPUTS

from .options import DeployOptions
from .tf_serving import DEFAULT_SIGNATURE

log = logging.getLogger(__name__)

SERVER_IMAGE = "tensorflow/serving:2.20.0"
GIB = 1 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


@dataclass(frozen=True)
class Model:
    """An artifact's SavedModel."""

    folder: Path
    manifest: Manifest
    graph: Graph

    @property
    def place(self) -> str:
        """Where its version stands."""
        return f"models/{self.manifest.name}/{self.manifest.version}"

    @property
    def takes_text(self) -> bool:
        """Whether its default signature does, not token ids."""
        return set(self.manifest.signatures[DEFAULT_SIGNATURE]["inputs"]) != set(INPUTS)


def deploy(artifacts: Sequence[Path], options: DeployOptions) -> None:
    """Write the folder `options.out`, whole or not at all; an existing one is refused."""
    out = options.out
    if out is None:
        raise UserError("--out is missing. Name the folder to write, e.g. --out deploy.")
    if out.exists():
        raise UserError(f"--out {out} exists. Choose another folder, or delete it first.")
    models = [_model(folder) for folder in artifacts]
    _refuse_equals(models)
    staging = out.parent / f".{out.name}.partial-{os.getpid()}"
    with disk_errors(out):
        staging.mkdir(parents=True)
        try:
            reserve(staging / "space", sum(model.graph.bytes for model in models))
            for model in models:
                shutil.copytree(model.folder / model.graph.path, staging / model.place)
            for name, text in _texts(models, options).items():
                (staging / name).write_text(text, "utf-8")
            for written in (*staging.rglob("*"), staging):
                sync(written)
            os.rename(staging, out)  # same disk: all or nothing
            sync(out.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _model(folder: Path) -> Model:
    """Open an artifact's SavedModel; UserError where there is none, or its files have changed."""
    manifest = Manifest.load(folder)
    graph = manifest.choose("saved_model")
    manifest.check_files(folder, graph.path)
    if not _NAME.fullmatch(manifest.name):
        raise UserError(f"{folder} is called {manifest.name!r}, which does not go into TF "
                        "Serving's addresses: allowed are letters a to z, digits, dots, dashes "
                        "and underscores. Convert it again, --out artifacts/NAME.")
    if manifest.drift:
        log.warning("DRIFT: %s was published although a file does not give the trained model's "
                    "answers.", folder)
    return Model(folder, manifest, graph)


def _refuse_equals(models: Sequence[Model]) -> None:
    places: dict[str, Model] = {}
    for model in models:
        if other := places.get(model.place):
            raise UserError(f"{other.folder} and {model.folder} are both {model.manifest.name} "
                            f"version {model.manifest.version}. Convert one again with another "
                            "--version, or under another name.")
        places[model.place] = model


def _texts(models: Sequence[Model], options: DeployOptions) -> dict[str, str]:
    """Give the small files by name."""
    names = list(dict.fromkeys(model.manifest.name for model in models))
    size = sum(model.graph.bytes for model in models)
    batching = all(model.takes_text for model in models)
    arguments = ["--model_config_file=/models/models.config",
                 "--model_config_file_poll_wait_seconds=60",
                 # TensorFlow counts the host's cores, not those that the container may use.
                 f"--tensorflow_intra_op_parallelism={options.cores}",
                 f"--tensorflow_inter_op_parallelism={options.cores}"]
    if batching:
        arguments += ["--enable_batching", "--batching_parameters_file=/models/batching.config"]
    return {"models/models.config": models_config(names),
            "models/batching.config": batching_config(options),
            "compose.yaml": _compose(arguments, batching),
            "Dockerfile": f"FROM {SERVER_IMAGE}\nCOPY models /models\n",
            "kubernetes.yaml": _kubernetes(names[0], arguments, size, options)}


def models_config(names: Sequence[str]) -> str:
    """Write a ModelServerConfig: of each model, the highest version."""
    entries = "".join(f"""  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
""" for name in names)
    return f"""# For --model_config_file: the highest version of each model is served, and a new
# version folder is found without a restart.
model_config_list {{
{entries}}}
"""


def batching_config(options: DeployOptions) -> str:
    """Write BatchingParameters for signatures that take texts."""
    sizes = (1 << power for power in range(options.batch_size.bit_length()))
    allowed = "\n".join(f"allowed_batch_sizes: {size}" for size in sizes)
    return f"""\
# For --enable_batching --batching_parameters_file. It holds for all signatures of all
# models, and fits those that take texts.

# Most texts in one request and in one call of the model; a larger request is refused.
max_batch_size {{ value: {options.batch_size} }}
# How long a text waits for others: little beside the milliseconds that a text takes.
batch_timeout_micros {{ value: 1000 }}
# Batches computed at once: one for each core (--cores), as TF Serving advises for CPUs.
num_batch_threads {{ value: {options.cores} }}
# Batches that wait; beyond them a request is refused at once, not answered too late.
max_enqueued_batches {{ value: 100 }}
# Sizes that a batch is filled up to; the last is max_batch_size.
{allowed}
# Never true: TF Serving pads rows of token ids with their first value, so padding would get
# attention_mask 1 and change answers. Token ids of unequal length are refused instead.
pad_variable_length_inputs: false
"""


def _compose(arguments: Sequence[str], batching: bool) -> str:
    note = "" if batching else ("    # Not batched: a model takes token ids, whose lengths differ "
                                "from request to request.\n")
    return f"""# docker compose up
services:
  tf-serving:
    image: {SERVER_IMAGE}
{note}    command:
{_items(arguments, 6)}
    # This computer only: the server has no login and no TLS.
    ports:
      - "127.0.0.1:8500:8500"  # gRPC
      - "127.0.0.1:8501:8501"  # REST
    volumes:
      - ./models:/models:ro
    restart: unless-stopped
    healthcheck:
      # The image has no curl; the port opens when every model is loaded.
      test: ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8501"]
      interval: 10s
      start_period: 120s
"""


def _kubernetes(model: str, arguments: Sequence[str], size: int, options: DeployOptions) -> str:
    name = json.dumps(options.name)  # in quotes: YAML reads `on` and `no` as something else
    # Weights while they are read and when they are in place, and the program itself.
    memory = -(-2 * size // GIB) + 1
    return f"""# docker build -t {options.image} . && kubectl apply -f kubernetes.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  replicas: 1
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      containers:
        - name: tf-serving
          image: {json.dumps(options.image)}
          imagePullPolicy: IfNotPresent
          args:
{_items(arguments, 12)}
          ports:
            - {{name: grpc, containerPort: 8500}}
            - {{name: rest, containerPort: 8501}}
          # The port opens when every model is loaded and warm; large ones take their time.
          startupProbe:
            httpGet: {{path: /v1/models/{model}, port: rest}}
            periodSeconds: 5
            failureThreshold: 120
          readinessProbe:
            httpGet: {{path: /v1/models/{model}/metadata, port: rest}}
            periodSeconds: 10
          livenessProbe:
            tcpSocket: {{port: rest}}
            periodSeconds: 20
          resources:
            # No limit of memory: what a batch takes depends on its longest text. Measure, then
            # set one.
            requests: {{cpu: "{options.cores}", memory: {memory}Gi}}
            limits: {{cpu: "{options.cores}"}}
          securityContext:
            allowPrivilegeEscalation: false
---
{_service(name)}"""


def _service(name: str) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  selector: {{app: {name}}}
  ports:
    - {{name: grpc, port: 8500, targetPort: grpc}}
    - {{name: rest, port: 8501, targetPort: rest}}
"""


def _items(words: Sequence[str], indent: int) -> str:
    return "\n".join(f"{' ' * indent}- {json.dumps(word)}" for word in words)
