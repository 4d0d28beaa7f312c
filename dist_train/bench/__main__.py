"""python -m dist_train.bench JOB ANSWER: the child of `tools/bench.py`."""

import sys
from pathlib import Path

from dist_train.bench.child import answer

answer(Path(sys.argv[1]), Path(sys.argv[2]))
