"""`python -m tf_pipeline`."""

import sys

from .cli import main

sys.exit(main())
