"""The training step compiled for TPUs that are not there: writes benchmarks/tpu.md.

    python -m benchmarks.tpu [--only tiny]

XLA compiles for a topology from its description alone (needs requirements-tpu.txt, on Linux).
Nothing runs, so nothing is said of speed: whether the step compiles, with which shapes, and what a
chip needs of its memory.
"""

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"  # weights are made here
# Without these libtpu looks for a machine's own description, and complains.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
               "TPU_WORKER_HOSTNAMES": "localhost"}

from benchmarks import shared
from benchmarks.shared import HERE
from tf_pipeline import command

MIB = 2 ** 20
MEMORY_MIB = {"v5e": 16 * 1024}  # of a chip


@dataclass(frozen=True)
class Step:
    """A training step to compile: a model's shape, a batch of it, and the chips."""

    model: str
    topology: str
    batch: int
    length: int

    def config(self) -> Any:
        """Give the architecture."""
        from tf_pipeline import checkpoints
        from tf_pipeline.backbone import BertConfig

        if self.model == "tiny":
            return checkpoints.load("tiny").config
        return BertConfig(vocab_size=30522, hidden_size=768, num_hidden_layers=12,
                          num_attention_heads=12, intermediate_size=3072)


STEPS = (Step("tiny", "v5e:1x1", 32, 64), Step("tiny", "v5e:2x2", 32, 64),
         Step("BERT-base", "v5e:2x2", 128, 128))


@dataclass(frozen=True)
class Compiled:
    """What XLA made of a step."""

    chips: int
    seconds: float
    arguments: int  # bytes of a chip's memory: weights, optimizer, batch
    temporary: int  # bytes: activations
    code: int  # bytes
    reductions: int  # all-reduce operations
    dynamic: int  # operations whose shape is only known when they run

    @property
    def needed(self) -> int:
        """Bytes that a chip needs in all; the step's new weights take the place of the old."""
        return self.arguments + self.temporary + self.code


def trainer_of(step: Step) -> Any:
    """Build what `train --task classify` would fit, and take a step of it here."""
    import keras
    import numpy as np

    from tf_pipeline import stepping, task
    from tf_pipeline.backbone import build
    from tf_pipeline.config import TrainConfig
    from tf_pipeline.text import INPUTS

    keras.config.set_dtype_policy("mixed_bfloat16")
    learned = task.create("classify", ["no", "yes"], {})
    model = learned.build(build(step.config()))
    trainer = stepping.compiled(model, learned, TrainConfig("classify", ""), 1, 1000)
    inputs = {name: np.ones((2, 8), np.int32) for name in INPUTS}
    targets = learned.targets([{"text": "", "label": label} for label in ("no", "yes")])
    trainer.train_on_batch(inputs, targets, np.ones(2, np.float32))  # creates every variable
    return trainer


def compile_step(step: Step) -> Compiled:
    """Compile the step that Keras would jit, weights on every chip and the batch cut among them."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from tf_pipeline.text import INPUTS

    trainer = trainer_of(step)
    alone = {"chips_per_host_bounds": (1, 1, 1)} if step.topology.endswith(":1x1") else {}
    chips = topologies.get_topology_desc(platform="tpu", topology_name=step.topology,
                                         **alone).devices
    mesh = Mesh(np.array(chips), ("batch",))

    def like(values: Any, *axes: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=sharding),
                            values)

    state = tuple([variable.value for variable in group] for group in (
        trainer.trainable_variables, trainer.non_trainable_variables,
        trainer.optimizer.variables, trainer.metrics_variables))
    batch = ({name: jax.ShapeDtypeStruct((step.batch, step.length), np.int32) for name in INPUTS},
             {name: jax.ShapeDtypeStruct((step.batch,), np.int32) for name in trainer.output},
             jax.ShapeDtypeStruct((step.batch,), np.float32))
    begin = time.time()
    compiled = jax.jit(trainer.train_step, donate_argnums=0).lower(
        like(state), like(batch, "batch")).compile()
    seconds = time.time() - begin
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None  # as on some backends
    assert text is not None
    return Compiled(len(chips), seconds, memory.argument_size_in_bytes,
                    memory.temp_size_in_bytes, memory.generated_code_size_in_bytes,
                    Counter(re.findall(r" (all-reduce(?:-start)?)\(", text)).total(),
                    text.count("[<="))  # how HLO writes a size with an upper bound


def row(step: Step, found: Compiled) -> str:
    """Write a line of the table."""
    size = [f"{part / MIB:,.0f}" for part in (found.arguments, found.temporary, found.code,
                                             found.needed)]
    whole = MEMORY_MIB[step.topology.partition(":")[0]]
    return (f"| {step.model} | {step.topology} | {step.batch} x {step.length} | "
            f"{found.seconds:.0f} | {' | '.join(size)} of {whole:,} | {found.reductions} | "
            f"{found.dynamic} |")


def main() -> None:
    """Compile and write the page."""
    parser = command.Parser(description=(__doc__ or "").splitlines()[0])
    models = sorted({step.model for step in STEPS})
    parser.add_argument("--only", choices=models, help="one of the models; prints its rows")
    flags = parser.parse_args()
    rows = [row(step, compile_step(step)) for step in STEPS if flags.only in (None, step.model)]
    if flags.only:
        print("\n".join(rows))
        return
    import jax

    page = f"""# TPU

Written by `python -m benchmarks.tpu`: the step of `train --task classify` under JAX (AdamW,
mixed_bfloat16, dropout), compiled ahead of time for TPU topologies by JAX {jax.__version__}
with libtpu. Nothing was run on a TPU, so nothing is said of speed. A length of a batch is one
compilation: `train` makes at most 20 of them.

| model | topology | batch | compiled in s | arguments MiB | temporary | code | a chip needs \
| all-reduces | dynamic shapes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

Commit {shared.commit()}, {shared.today()}.
"""
    (HERE / "tpu.md").write_text(page, "utf-8")
    print(f"Wrote {HERE / 'tpu.md'}")


if __name__ == "__main__":
    main()
