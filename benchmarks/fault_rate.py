# SPDX-License-Identifier: GPL-2.0-only
"""Page faults a second of the model by itself, on each driver that is there.

    .venv/bin/python benchmarks/fault_rate.py [--rounds N]

The loop is that of the headline program: touch each page of 2 MiB, MADV_DONTNEED them.  CPU time of this process is
counted, so other work on the machine disturbs little.  The drivers are interleaved and the best of five runs is told.
"""

from __future__ import annotations

import time

import click

from tablewalk.machine import drivers, native
from tablewalk.machine.drivers import KernelConfig, Model

BASE = 0x10_0000_0000
MB2 = 2 << 20


def run(model: Model, rounds: int) -> float:
    """Faults a second of CPU time, DONTNEED included."""
    k = model.kernel
    mm = k("mm_init").mm_alloc()
    k("mmap").sys_mmap(mm, BASE, 4 * MB2, 3, 0x22, k("mm_types").file(0), 0)
    fault, madvise = k("fault").do_user_addr_fault, k("madvise").sys_madvise
    quiescent = model.machine.quiescent
    began = time.process_time()
    for i in range(rounds):
        start = BASE + i % 4 * MB2
        for address in range(start, start + MB2, 4096):
            fault(mm, address, True)
        madvise(mm, start, MB2, 4)
        quiescent()
    seconds = time.process_time() - began
    assert model.machine.load(mm.anon_rss) == 0
    k("mm_init").mmput(mm)
    return rounds * 512 / seconds


@click.command()
@click.option("--rounds", default=100, show_default=True, help="Times 512 faults and a DONTNEED.")
def main(rounds: int) -> None:
    names = ["sequential", *(["native"] if native.built() else [])]
    best = dict.fromkeys(names, 0.0)
    for _ in range(5):
        for name in names:
            best[name] = max(best[name], run(drivers.model(KernelConfig(), name), rounds))
    for name, rate in best.items():
        print(f"{name:12} {rate:12,.0f} faults a second, each page given back by MADV_DONTNEED")
    if "native" not in best:
        print("native       not compiled: `tablewalk compile` does it")


if __name__ == "__main__":
    main()
