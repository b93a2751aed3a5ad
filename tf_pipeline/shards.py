"""Encoded examples on disk: TFRecord shards, written once and read in windows.

A record is a block of examples, an array for each of their parts: reading it costs what reading a
single example would. What is read together (`WINDOW` blocks, of several files) is shuffled and
sorted by length as a data set in memory is, so training's memory does not grow with the data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .data import Batching, Cut, Table, drawn
from .text import Encoded

if TYPE_CHECKING:
    import tensorflow as tf

BLOCK = 512  # examples of a record
FILE = 32  # records of a file
WINDOW = 32  # records that are read together, at least
READ = 8  # files that are read in turn
LEAST_BATCHES = 16  # of a window: of fewer, few would be of like length
PARTS = ("ids", "types", "lengths", "weights")  # of a record, and targets/NAME


@dataclass(frozen=True)
class Layout:
    """What has to be known of written examples to read them."""

    examples: int
    tokens: int
    longest: int  # tokens of the longest text
    texts: int  # of each example
    by_token: bool  # whether targets belong to tokens
    pad_id: int
    parts: dict[str, tuple[str, list[int]]]  # of a record: number format, and shape of one entry


class Writer:
    """Writes tables of examples into files of a folder, in the order in which they come."""

    def __init__(self, folder: Path, pad_id: int, by_token: bool):
        self.folder, self.names = folder, list[str]()
        self._pad_id, self._by_token = pad_id, by_token
        self._rest: Table = {}
        self._parts: dict[str, tuple[str, list[int]]] = {}
        self._file: Any = None
        self._records = self._examples = self._tokens = self._longest = self._texts = 0

    def add(self, table: Table) -> None:
        """Take examples whose texts follow each other as the examples do."""
        arrays = {**{name: table[name] for name in PARTS},
                  **{f"targets/{name}": values for name, values in table["targets"].items()}}
        arrays["types"] = arrays["types"].astype(np.uint8)
        self._texts = table["groups"].shape[1]
        self._parts = {name: (values.dtype.name, list(values.shape[1:]))
                       for name, values in arrays.items()}
        self._examples += len(table["groups"])
        self._tokens += len(table["ids"])
        self._longest = max(self._longest, int(table["lengths"].max()))
        waiting = {name: np.concatenate([self._rest[name], values]) if self._rest else values
                   for name, values in arrays.items()}
        count = len(waiting["weights"])
        whole = count - count % BLOCK
        for begin in range(0, whole, BLOCK):
            self._write(self._slice(waiting, begin, begin + BLOCK))
        self._rest = self._slice(waiting, whole, count)

    def close(self) -> Layout:
        """Write what is left and say what there is."""
        if len(self._rest["weights"]):
            self._write(self._rest)
        self._file.close()
        return Layout(self._examples, self._tokens, self._longest, self._texts, self._by_token,
                      self._pad_id, self._parts)

    def _slice(self, arrays: Table, begin: int, end: int) -> Table:
        """Give some of the examples."""
        ends = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
        examples, texts = slice(begin, end), slice(begin * self._texts, end * self._texts)
        tokens = slice(ends[texts.start], ends[texts.stop])
        spans = {"ids": tokens, "types": tokens, "lengths": texts, "weights": examples}
        of_target = tokens if self._by_token else examples
        return {name: values[spans.get(name, of_target)] for name, values in arrays.items()}

    def _write(self, block: Table) -> None:
        import tensorflow as tf

        if self._records % FILE == 0:
            if self._file:
                self._file.close()
            self.names.append(f"examples-{len(self.names):05}.tfrecord")
            self._file = tf.io.TFRecordWriter(str(self.folder / self.names[-1]))
        self._records += 1
        self._file.write(tf.train.Example(features=tf.train.Features(feature={
            name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[values.tobytes()]))
            for name, values in block.items()})).SerializeToString())


@dataclass(frozen=True)
class Shards:
    """Written examples as training reads them."""

    paths: tuple[str, ...]
    layout: Layout

    @property
    def count(self) -> int:
        """What a training step counts."""
        return self.layout.examples

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.layout.longest

    def steps(self, size: int) -> int:
        """Count the batches that an epoch has at least, wherever the one short block is read."""
        window = _blocks(size) * BLOCK
        full, rest = divmod(self.count, BLOCK)
        blocks = full + bool(rest)
        missing = blocks * BLOCK - self.count
        before = max(0, -(-blocks * BLOCK // window) - 1)  # windows ahead of the last
        last = blocks * BLOCK - before * window
        at_end = before * (window // size) + (last - missing) // size
        if not before:
            return at_end
        return min(at_end, (before - 1) * (window // size) + (window - missing) // size
                   + last // size)

    def batches(self, batching: Batching, start: int = 0) -> "tf.data.Dataset":
        """Give what `data.InMemory.batches` gives, examples of one window in a batch."""
        import tensorflow as tf

        steps, blocks = self.steps(batching.size), _blocks(batching.size)
        windows = -(-self.count // (blocks * BLOCK))

        def epoch(number: "tf.Tensor") -> "tf.data.Dataset":
            seed = tf.stack([tf.cast(batching.seed, tf.int64), number])
            paths = tf.random.experimental.stateless_shuffle(tf.constant(self.paths), seed)
            records = tf.data.Dataset.from_tensor_slices(paths).interleave(
                tf.data.TFRecordDataset, READ, 1, num_parallel_calls=2, deterministic=True)
            read = records.batch(blocks).map(self._window, 1).prefetch(1).enumerate()
            return read.flat_map(lambda place, table: drawn(
                table, batching, number * windows + place)).take(steps)

        order = tf.data.Dataset.counter(start // steps).flat_map(epoch).skip(start % steps)
        return order.map(Cut(self.layout.pad_id, self.layout.by_token), num_parallel_calls=2,
                         deterministic=True).prefetch(tf.data.AUTOTUNE)

    def sample(self) -> Encoded:
        """Give some of the texts, to see how long a step takes."""
        import tensorflow as tf

        (record,) = tf.data.TFRecordDataset(self.paths[0]).batch(1).take(1)
        table = self._window(record)
        lengths = table["lengths"].numpy()
        return Encoded(table["ids"].numpy(), table["types"].numpy(),
                       np.concatenate([[0], np.cumsum(lengths)]), pad_id=self.layout.pad_id,
                       groups=table["groups"].numpy() if self.layout.texts > 1 else None)

    def _window(self, records: "tf.Tensor") -> Table:
        """Read records (blocks,) as one table."""
        import tensorflow as tf

        parsed = tf.io.parse_example(records, {
            name: tf.io.FixedLenFeature([], tf.string) for name in self.layout.parts})
        # The bytes of all blocks, one after the other, are the bytes of the whole array.
        arrays = {name: tf.reshape(tf.io.decode_raw(tf.strings.reduce_join(parsed[name]), kind),
                                   [-1, *shape])
                  for name, (kind, shape) in self.layout.parts.items()}
        lengths, texts = arrays["lengths"], self.layout.texts
        return {"ids": arrays["ids"], "types": tf.cast(arrays["types"], tf.int32),
                "lengths": lengths, "weights": arrays["weights"],
                "starts": tf.cumsum(tf.cast(lengths, tf.int64), exclusive=True),
                "groups": tf.reshape(tf.range(tf.size(lengths)), [-1, texts]),
                "targets": {name.removeprefix("targets/"): values
                            for name, values in arrays.items() if name.startswith("targets/")}}

def _blocks(size: int) -> int:
    return max(WINDOW, -(-LEAST_BATCHES * size // BLOCK))
