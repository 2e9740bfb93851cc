"""The running program: where events come from, where rows live, and everything between."""

import os

os.environ.setdefault("MKL_CBWR", "AUTO")
"""Equal bits whatever the place in a block: without it MKL's kernels round by the alignment of their operands
(Intel oneMKL, Conditional Numerical Reproducibility). It is read at the first product, and inherited by children."""
