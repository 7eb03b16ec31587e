# SPDX-License-Identifier: GPL-2.0-only
"""The verb `simulate`: who waits for which lock, for how long, on how many CPUs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from tablewalk.cli._options import kconfig_option, write
from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.drivers import NEWEST, KernelConfig
from tablewalk.record.recording import Recording
from tablewalk.replay.select import select
from tablewalk.report import simulation
from tablewalk.report.latency import show
from tablewalk.report.tracks import chrome_trace
from tablewalk.simulate.calibrate import as_table, calibrated
from tablewalk.simulate.profile import Profile
from tablewalk.simulate.run import as_object, simulate, simulate_recording
from tablewalk.simulate.threads import Stuck
from tablewalk.simulate.workloads import CPUS, PARAMETERS, WORKLOADS


@click.command()
@click.argument("workload", required=False)
@click.option("--kernel", "kernels", multiple=True, metavar="RELEASE", help="Linux release, as 6.1; may be repeated.")
@click.option("--cpus", type=int, default=CPUS.default, show_default=True,
              help=f"CPUs, {CPUS.least} to {CPUS.most}.")
@click.option("--seed", type=int, default=1, show_default=True, help="What is random is drawn from it.")
@click.option("--with", "values", multiple=True, metavar="NAME=NUMBER",
              help="A parameter of the workload; may be repeated.")
@click.option("--arch", help="Architecture [default: x86_64, or the recorded one].")
@click.option("--set", "options", multiple=True, metavar="NAME=VALUE", help="Kconfig or sysfs option, as PT_RECLAIM=n.")
@click.option("--without", multiple=True, metavar="PATCH", help="Leave a patch out; may be repeated.")
@click.option("--against", multiple=True, metavar="NAME=VALUE|PATCH",
              help="Each kernel again with that option, or without that patch (or several: A,B); may be repeated.")
@click.option("--profile", type=click.Path(path_type=Path), metavar="FILE",
              help="What things cost on another machine (docs/simulate.md).")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE",
              help="The results as a page: distributions, waits, memory, and a timeline to zoom into.")
@click.option("--perfetto", type=click.Path(path_type=Path), metavar="FILE",
              help="Threads, CPUs, waits and VmPTE over time as a Chrome trace, for ui.perfetto.dev.")
@click.option("--calibrate", type=click.Path(path_type=Path), metavar="FILE",
              help="Measure this machine, and write what things cost here to FILE, for --profile.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
def command(
    workload: str | None,
    kernels: tuple[str, ...],
    cpus: int,
    seed: int,
    values: tuple[str, ...],
    arch: str | None,
    options: tuple[str, ...],
    without: tuple[str, ...],
    against: tuple[str, ...],
    profile: Path | None,
    html: Path | None,
    perfetto: Path | None,
    calibrate: Path | None,
    as_json: bool,
) -> int:
    """Run WORKLOAD, or what the threads of a recording did, in virtual time under one or several kernels.

    WORKLOAD is one of those below, or the file of a recording (NAME.tw).  Tells how long its operations take and
    who makes whom wait for which lock. Without --kernel it is the newest, or the recorded one.
    Exit status 1 if nobody gets on any more: a deadlock, told with who waits for whom.
    """
    if calibrate:
        write(calibrate, json.dumps(as_table(calibrated()), indent=2) + "\n")
    if workload is None:
        if calibrate:
            return 0
        raise TablewalkError(f"what is to be simulated? one of {', '.join(WORKLOADS)}, or a recording")
    profile = profile or calibrate
    costs = Profile.read(profile) if profile else Profile()
    parameters = dict(_parameter(text) for text in values)
    path = _recording(workload)
    if path and values:
        raise TablewalkError("--with: a recording has no parameters")
    settings = tuple(kconfig_option(text) for text in options)
    asked = [KernelConfig(kernel, arch or "x86_64", settings, without) for kernel in kernels or (NEWEST,)]
    configs = asked
    if path:
        selections = select(Recording.open(path).meta, kernels, arch, options, without)
        configs = [s.config for s in selections]
        asked = [KernelConfig(c.release, c.arch, settings, without) for c in configs]
    logged = html is not None or perfetto is not None
    try:
        results = []
        for config, named in zip(_varied(configs, against), _varied(asked, against), strict=True):
            if path:
                results.append(simulate_recording(path, config, cpus, costs, str(named), logged))
            else:
                results.append(simulate(workload, config, cpus, seed, parameters, costs, logged))
    except Stuck as e:
        click.echo(f"tablewalk: {escape(str(e))}", err=True)
        return 1
    if html:
        write(html, simulation.page(results))
    if perfetto:
        write(perfetto, chrome_trace(results))
    if as_json:
        click.echo(json.dumps({"simulations": [as_object(r) for r in results]}, separators=(",", ":")))
    else:
        show(results, Console(highlight=False, width=None if os.isatty(1) or os.environ.get("COLUMNS") else 140))
    return 0


def _recording(workload: str) -> Path | None:
    """The recording that is meant, if it is none of the workloads."""
    path = Path(workload)
    return path if workload not in WORKLOADS and (path.suffix == ".tw" or path.exists()) else None


def _varied(configs: list[KernelConfig], changes: tuple[str, ...]) -> list[KernelConfig]:
    """Each kernel, and then with each change to it."""
    return [varied for config in configs for varied in (config, *(_changed(config, change) for change in changes))]


def _changed(config: KernelConfig, change: str) -> KernelConfig:
    """A kernel with options more, or patches less; several at once have commas between them."""
    for part in change.split(","):
        if "=" in part:
            config = replace(config, options=(*config.options, kconfig_option(part)))
        else:
            config = replace(config, without=(*config.without, part))
    return config


def _parameter(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name not in PARAMETERS or not value.removeprefix("-").isdecimal():
        raise TablewalkError(f"--with {text}: NAME=NUMBER is wanted, with NAME one of {', '.join(PARAMETERS)}")
    return name, int(value)


command.epilog = "\n\n".join(
    ["\b\nParameters:\n" + "\n".join(
        f"  {name:10} {p.help} ({p.least} to {p.most}, default {p.default})" for name, p in PARAMETERS.items()
    )]
    + ["Workloads, by what their threads do:"]
    + [f"{name}: {(setup.__doc__ or '').strip()}" for name, setup in WORKLOADS.items()]
)  # fmt: skip
