# SPDX-License-Identifier: GPL-2.0-only
"""numpy over arrays large enough that it asks for huge pages: sorting, matrix products, temporaries."""

import numpy as np

random = np.random.default_rng(1)
total = 0.0
for step in range(12):
    a = random.random((1200, 1200))
    b = a @ a.T + np.linalg.inv(a + 1200 * np.eye(1200))
    values = random.integers(0, 1 << 40, 3_000_000)
    order = np.argsort(values, kind="stable")
    ranked = values[order[:: step + 1]]
    parts = [np.frombuffer(bytes(ranked[i : i + 1000]), dtype=np.int64) for i in range(0, len(ranked), 1000)]
    total += float(b.trace()) + float(np.concatenate(parts).mean())
print(f"{total:.6e}")
