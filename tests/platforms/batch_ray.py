"""Runs where Ray is installed: `ARTIFACT ROWS.jsonl OUT`, on a cluster of this machine alone."""

import json
import os
import sys
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when ray is imported

import ray  # noqa: E402

from serving import BatchAnswerer  # noqa: E402
from serving.batch.ray import AnswerColumns  # noqa: E402

if __name__ == "__main__":
    artifact, file, out = sys.argv[1:]
    with open(file, encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
             logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = ray.data.from_items([{"text": None, **row} for row in rows]).map_batches(
        AnswerColumns, fn_constructor_args=(BatchAnswerer(artifact),), batch_size=16,
        concurrency=1, num_cpus=1).take_all()
    for name, kind in (("answers", "answer"), ("errors", "error")):
        with (Path(out) / name).open("w", encoding="utf-8") as stream:
            for row in found:
                if row[kind] is not None:
                    value = json.loads(row[kind]) if kind == "answer" else row[kind]
                    stream.write(json.dumps({"row": rows[row["id"]], kind: value}) + "\n")
    ray.shutdown()
