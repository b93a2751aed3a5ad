"""The training step: a model with the optimizer that suits the backend and the devices."""

from typing import TYPE_CHECKING

from .config import TrainConfig
from .task import Task, Trained

if TYPE_CHECKING:
    import keras


def compiled(model: "keras.Model", task: Task, config: TrainConfig, devices: int,
             steps: int) -> "keras.Model":
    """Give a second Model over the same layers, ready to `fit` for so many steps on devices.

    Saving the first then never writes optimizer slots.
    """
    import keras

    from .schedule import WarmupAndDecay

    jax = keras.backend.backend() == "jax"
    trainer = (task.trainer(model) if isinstance(task, Trained)
               else keras.Model(model.input, model.output))
    if config.mini_batch_size:
        trainer = _in_parts(trainer, task, max(1, config.mini_batch_size // devices))
    schedule = WarmupAndDecay(config.learning_rate, int(config.warmup * steps), steps)
    settings = {"weight_decay": config.weight_decay, "epsilon": 1e-8,
                "global_clipnorm": config.clip_norm}
    if jax:
        optimizer = keras.optimizers.AdamW(schedule, **settings)
    elif devices > 1:
        from .optimizer import MirroredAdamW

        optimizer = MirroredAdamW(schedule, **settings)
    else:
        from .optimizer import LazyAdamW, LazyModel, lookup_tables

        optimizer = LazyAdamW(schedule, tables=lookup_tables(trainer), **settings)
        if optimizer.tables:
            trainer = LazyModel(trainer.input, trainer.output)
    # No decay on biases and layer norms (Devlin et al. 2019, and every BERT code since).
    optimizer.exclude_from_weight_decay(var_list=[
        v for v in model.trainable_variables if v.name in ("bias", "beta", "gamma")])
    # XLA on a CPU took 1.5 times as long (measured), and on TensorFlow compiles each length.
    trainer.compile(optimizer, jit_compile=jax, **task.compile_args())
    return trainer


def _in_parts(trainer: "keras.Model", task: Task, records: int) -> "keras.Model":
    from .mini_batches import AccumulatedGradients, CachedGradients

    kind = CachedGradients if task.COMPARES else AccumulatedGradients
    return kind(trainer.input, trainer.output, records)
