"""Where to train: the only file that asks the frameworks for their devices and spreads work."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import processes
from .config import TrainConfig
from .errors import UserError, wrong_backend
from .gpus import idle_gpu
from .install import pip_install

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger(__name__)

Found = tuple[str, int, str]  # name of one device, how many of them, the number format they like


@dataclass(frozen=True)
class Device:
    """What training runs on, in words, and the number format in which it is quick."""

    name: str
    quick: str  # a Keras dtype policy
    count: int = 1
    # Of several devices: a tf.distribute.Strategy, or a keras.distribution.Distribution.
    spread: Any = None
    process: int = 0  # which of `processes` this is
    processes: int = 1

    def precision(self, asked: str) -> tuple[str, str]:
        """Settle the dtype policy, and say why it is that."""
        if asked != "auto":
            return asked, "as asked"
        if self.quick == "float32":
            return "float32", "as exports compute on a CPU"
        return self.quick, "this device multiplies it faster than float32"

    def scope(self) -> AbstractContextManager[Any]:
        """Build, compile and fit the model inside: its weights are then on every device."""
        return self.spread.scope() if self.spread else nullcontext()

    def stage(self, config: TrainConfig) -> AbstractContextManager[TrainConfig]:
        """Say where this process writes."""
        return processes.stage(config) if self.processes > 1 else nullcontext(config)

    def feed(self, batches: "tf.data.Dataset") -> Any:
        """Deal each batch's rows out to the devices, the first to the first."""
        import keras
        import tensorflow as tf

        if keras.backend.backend() == "jax":
            return batches if self.processes == 1 else batches.map(
                lambda *parts: tf.nest.map_structure(self._own, parts))
        if self.count == 1:
            return batches

        def cut(values: "tf.Tensor") -> "tf.Tensor":
            rest = tf.shape(values)[1:]
            return tf.reshape(values, tf.concat([[self.count, -1], rest], 0))

        # Not tf.distribute's own way, which wants as many targets as texts: groups have fewer.
        parts = batches.map(lambda *parts: tf.nest.map_structure(cut, parts)).unbatch()
        return self.spread.distribute_datasets_from_function(lambda _: parts.prefetch(self.count))

    def _own(self, values: "tf.Tensor") -> "tf.Tensor":
        """Cut this process's rows, which JAX then deals out to its devices."""
        import tensorflow as tf

        rows = tf.shape(values)[0] // self.processes
        return values[self.process * rows:(self.process + 1) * rows]


def choose(config: TrainConfig) -> Device:
    """Look at the backend's devices and settle what is `auto`; called once by training.fit."""
    import keras

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise wrong_backend(backend)
    if config.mini_batch_size and backend != "tensorflow":
        raise UserError(f"--mini-batch-size is {config.mini_batch_size}, which works on the "
                        f"TensorFlow backend only; this is {backend}. Leave it out, or set "
                        "KERAS_BACKEND=tensorflow.")
    name, available, quick = _jax(config) if backend == "jax" else _tensorflow(config)
    process, several = _process(backend)
    if several > 1 and config.devices:
        raise UserError(f"--devices is {config.devices}, and of {several} processes all devices "
                        "train. Leave it out.")
    alone = name.startswith("CPU") and several == 1
    count = config.devices or (1 if alone else available)
    if count > available:
        raise UserError(f"--devices is {count}, and this machine has {available}: {name}. Give "
                        f"{available} or less.")
    across = config.model_parallel
    if across > 1 and (backend != "jax" or several > 1 or count % across):
        raise UserError(f"--model-parallel is {across}, and training is on {count} x {name} "
                        f"({backend}) in {several} process(es). It works on the JAX backend "
                        "(KERAS_BACKEND=jax) in one process, and must divide the number of "
                        "devices.")
    if config.batch_size % (count // across):
        raise UserError(f"--batch-size is {config.batch_size}, which {count} devices cannot share "
                        f"evenly. Give a multiple of {count // across}, or fewer --devices.")
    shown = f"{count} x {name}" if count > 1 else name
    shown += f" in {several} processes" if several > 1 else ""
    return Device(f"{shown} ({backend})", quick, count,
                  _spread(backend, count, across) if count > 1 else None, process, several)


def _process(backend: str) -> tuple[int, int]:
    """Give this process's number, and how many there are."""
    if backend != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def _spread(backend: str, count: int, across: int) -> Any:
    import keras

    if backend == "jax" and across > 1:
        return _split_weights(count, across)
    if backend == "jax":
        # Weights on every device, batches cut along their first axis.
        # Several processes feed their own rows (`Device.feed`).
        return keras.distribution.DataParallel(
            devices=keras.distribution.list_devices()[:count], auto_shard_dataset=False)
    import tensorflow as tf

    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])


def _split_weights(count: int, across: int) -> Any:
    """Cut each layer's matrices among `across` devices, and batches among the groups of them."""
    from keras import distribution

    from .backbone import SPLIT

    mesh = distribution.DeviceMesh((count // across, across), ("batch", "model"),
                                   distribution.list_devices()[:count])
    layout = distribution.LayoutMap(mesh)
    for path, axes in SPLIT.items():
        layout[path] = axes
    return distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn a step's want of memory, on whichever device, into one line that ends with `advice`."""
    import keras
    import tensorflow as tf

    known: tuple[type[Exception], ...] = (MemoryError, tf.errors.ResourceExhaustedError)
    if keras.backend.backend() == "jax":
        import jax

        known += (jax.errors.JaxRuntimeError,)  # of every status
    try:
        yield
    except known as error:
        if isinstance(error, known[:2]) or "RESOURCE_EXHAUSTED" in str(error):
            raise UserError(f"The memory does not suffice {advice}") from error
        raise


def _tensorflow(config: TrainConfig) -> Found:
    import tensorflow as tf

    processes.refuse_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if config.device == "tpu":
        raise UserError("--device is tpu, which Keras 3 trains on with its JAX backend only: "
                        f"{pip_install('jax[tpu]')}, and set KERAS_BACKEND=jax.")
    try:
        if gpus and config.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        if config.device == "cpu" and config.devices > 1:
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0],
                [tf.config.LogicalDeviceConfiguration()] * config.devices)
    except RuntimeError:  # the runtime is up, and has what it has
        _refuse_late(config, len(tf.config.list_logical_devices("CPU")),
                     len(tf.config.list_logical_devices("GPU")))
    if not gpus or config.device == "cpu":
        return _cpu(config, "tensorflow", len(tf.config.list_logical_devices("CPU")))
    details: dict[str, Any] = tf.config.experimental.get_device_details(gpus[0])
    # Tensor cores know bfloat16 since Ampere (8.0); before that only float16, with loss scaling.
    ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
    return (f"GPU {details.get('device_name', '')}".strip(), len(gpus),
            "mixed_bfloat16" if ampere else "mixed_float16")


def _refuse_late(config: TrainConfig, cpus: int, gpus: int) -> None:
    """Raise UserError where a framework that is already at work cannot do with CPUs as asked."""
    if gpus or cpus < config.devices:
        raise UserError(f"--device is cpu and --devices {config.devices}, and this process has "
                        f"begun with {cpus} CPU and {gpus} GPU. Train in a process of its own.")


def _jax(config: TrainConfig) -> Found:
    import jax
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # tf.data feeds; the accelerator belongs to JAX
    if config.device == "cpu":
        try:
            jax.config.update("jax_platforms", "cpu")
            if config.devices > 1:
                jax.config.update("jax_num_cpu_devices", config.devices)
        except RuntimeError:
            _refuse_late(config, jax.device_count("cpu"), 0)
    processes.join()
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _cpu(config, "jax", jax.device_count())
    if config.device not in ("auto", device.platform):
        raise UserError(f"--device is {config.device}, and JAX finds {device.device_kind} "
                        f"({device.platform}). Give --device {device.platform} or auto.")
    return device.device_kind, jax.device_count(), "mixed_bfloat16"


def _cpu(config: TrainConfig, backend: str, available: int) -> Found:
    idle = idle_gpu(backend) if config.device != "cpu" else None
    if config.device == "tpu":
        raise UserError(f"--device is tpu, and JAX finds none. Try: {pip_install('jax[tpu]')}, on "
                        "a machine with a TPU.")
    if config.device == "gpu":
        found = f"GPU {idle.name} cannot be used: {idle.reason}. Try: {idle.cure}" if idle else \
            "this machine shows no NVIDIA GPU. `python -m tf_pipeline doctor` says more"
        raise UserError(f"--device is gpu, and {found}.")
    if idle:
        log.warning("GPU %s is not used: %s. Try: %s", idle.name, idle.reason, idle.cure)
    # Where a CPU has instructions for it bfloat16 gains little or loses (docs/decisions.md).
    return f"CPU, {os.cpu_count()} cores", available, "float32"
