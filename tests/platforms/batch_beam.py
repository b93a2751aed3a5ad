"""Runs where Apache Beam is installed: `ARTIFACT ROWS.jsonl OUT`, on Beam's own runner."""

import json
import sys

import apache_beam as beam

from serving import BatchAnswerer
from serving.batch.beam import AnswerRows

if __name__ == "__main__":
    artifact, rows, out = sys.argv[1:]
    with beam.Pipeline(runner="DirectRunner") as pipeline:
        found = (pipeline | beam.io.ReadFromText(rows) | beam.Map(json.loads)
                 | AnswerRows(BatchAnswerer(artifact), most_rows=16))
        for name in ("answers", "errors"):
            (found[name] | f"{name} as JSON" >> beam.Map(json.dumps)
             | f"Write {name}" >> beam.io.WriteToText(f"{out}/{name}", shard_name_template=""))
