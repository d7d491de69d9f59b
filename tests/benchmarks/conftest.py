"""The benchmarks are run from the checkout and not installed: here they are found by their folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
