"""Runs where KServe is installed: `SAVED_MODEL NAME PORT`, KServe's server with the V1 protocol."""

import sys

import kserve
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers its operations)

folder, name, port = sys.argv[1:]


class SavedModel(kserve.Model):
    """Answers `:predict` with the default signature."""

    def load(self) -> bool:
        self.loaded = tf.saved_model.load(folder)
        self.ready = True
        return self.ready

    def predict(self, payload: dict, headers: dict | None = None) -> dict:
        rows = [row if isinstance(row, dict) else {"text": row} for row in payload["instances"]]
        found = self.loaded.signatures["serving_default"](
            **{name: tf.constant([row[name] for row in rows]) for name in rows[0]})
        columns = {name: values.numpy().tolist() for name, values in found.items()}
        if "label" in columns:
            columns["label"] = [label.decode() for label in columns["label"]]
        if len(columns) == 1:  # TF Serving drops the name then
            return {"predictions": next(iter(columns.values()))}
        return {"predictions": [dict(zip(columns, row, strict=True))
                                for row in zip(*columns.values(), strict=True)]}


model = SavedModel(name)
model.load()
kserve.ModelServer(http_port=int(port), enable_grpc=False).start([model])
