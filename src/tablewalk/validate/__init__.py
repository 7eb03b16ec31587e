# SPDX-License-Identifier: GPL-2.0-only
"""Real kernels as referees: the same operations on the model and on Linux, compared."""
