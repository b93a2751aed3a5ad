"""Runs where MediaPipe is installed: `MODEL`, texts as JSON lines in, scores by label out."""

import json
import sys

from mediapipe.tasks.python import BaseOptions, text

options = text.TextClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with text.TextClassifier.create_from_options(options) as classifier:
    for line in sys.stdin:
        (found,) = classifier.classify(json.loads(line)).classifications
        print(json.dumps({label.category_name: label.score for label in found.categories}))
