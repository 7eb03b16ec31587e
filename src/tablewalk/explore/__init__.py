# SPDX-License-Identifier: GPL-2.0-only
"""Every interleaving of a scenario's threads: thread automata learned from the model, and a native search over them."""

import os

# numpy's threads for matrices, of which there are none here, take as long to start as a small search
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
