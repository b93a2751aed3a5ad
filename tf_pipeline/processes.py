"""Training in several processes, one for each host of a cluster: all run the same program.

Each reads all data and cuts the same batches, and feeds its own rows to its own chips; Keras and
JAX see to it that weights stay equal. The first writes the run. Keras 3 knows this on its JAX
backend only.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .config import TrainConfig
from .errors import UserError

# What keras.distribution.initialize reads, with ..._JOB_ADDRESSES and ..._PROCESS_ID.
NUMBER = "KERAS_DISTRIBUTION_NUM_PROCESSES"


def asked() -> bool:
    """Tell whether the environment asks for several processes."""
    return os.environ.get(NUMBER, "1") != "1"


def refuse_tensorflow() -> None:
    """Raise UserError where TensorFlow is to train in several processes."""
    try:
        workers = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
    except (ValueError, AttributeError):
        workers = {}
    several = sum(map(len, workers.values())) > 1
    if several or asked():
        name = "TF_CONFIG" if several else NUMBER
        raise UserError(f"{name} asks for several processes, in which Keras 3 trains on its JAX "
                        "backend only. Set KERAS_BACKEND=jax, and what docs/train.md says of "
                        f"several hosts; or unset {name}.")


def join() -> None:
    """Meet the other processes, if any are asked for: waits until all are there.

    To be called before JAX looks for its devices.
    """
    import keras

    if not asked():
        return
    try:
        keras.distribution.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{NUMBER} is {os.environ[NUMBER]}, and the processes do not find "
                        f"together: {error} Give each of them all three variables as "
                        "docs/train.md says.") from None


@contextmanager
def stage(config: TrainConfig) -> Iterator[TrainConfig]:
    """Let the first process write `config.out`, the others what they throw away.

    They wait at the end until the run is written, and need `config.out` to go on from.
    """
    import jax
    from jax.experimental import multihost_utils

    assert config.out is not None
    with tempfile.TemporaryDirectory() as folder:
        own = config
        if jax.process_index():
            out = Path(folder) / "run"
            own = dataclasses.replace(config, out=out, track="files")
            if (config.out / "checkpoints").is_dir():
                shutil.copytree(config.out / "checkpoints", out / "checkpoints")
        multihost_utils.sync_global_devices("begin")  # the first changes nothing before
        yield own
        multihost_utils.sync_global_devices("end")


def agree(about: dict[str, Any]) -> None:
    """Raise UserError where processes differ in what decides each step."""
    from jax.experimental import multihost_utils

    digest = hashlib.sha256(json.dumps(about, default=str, sort_keys=True).encode()).digest()[:4]
    all_digests = multihost_utils.process_allgather(np.frombuffer(digest, np.int32)).ravel()
    differing = np.flatnonzero(all_digests != all_digests[0]).tolist()
    if differing:
        raise UserError(f"Process {', '.join(map(str, differing))} has other settings, data or "
                        "checkpoints than process 0. Give all of them the same command, the same "
                        "files, and an --out that all of them see.")
