# SPDX-License-Identifier: GPL-2.0-only
"""The verb `audit`: kernel C source against the page-table access rules."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tablewalk import __version__
from tablewalk.audit.baseline import read_baseline, without_accepted
from tablewalk.audit.output import as_json, as_sarif, census
from tablewalk.audit.rules import RULES
from tablewalk.audit.run import Audit, audit
from tablewalk.errors import TablewalkError, escape

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--rules", "list_rules", is_flag=True, help="The rules and their ids.")
@click.option("--baseline", type=_FILE, metavar="FILE", help="Accepted findings, with reasons.")
@click.option("--annotations", type=_FILE, multiple=True, metavar="FILE", help="Contracts of functions; repeatable.")
@click.option("--coverage", is_flag=True, help="What was looked at, and all that was not understood.")
@click.option("--census", "with_census", is_flag=True, help="Every call of the interface, with its verdict.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON object.")
@click.option("--sarif", is_flag=True, help="SARIF 2.1.0.")
def command(
    paths: tuple[Path, ...],
    list_rules: bool,
    baseline: Path | None,
    annotations: tuple[Path, ...],
    coverage: bool,
    with_census: bool,
    as_json_: bool,
    sarif: bool,
) -> int:
    """Check kernel C source for the page-table access rules.

    One line for each place that breaks a rule, as a compiler's warnings.  docs/audit.md explains the rules.
    Exit status 1 if there is one.
    """
    if list_rules:
        for rule, text in RULES.items():
            click.echo(f"{rule}: {text}")
        return 0
    if not paths:
        raise TablewalkError("audit: give files or directories of C source")
    if as_json_ and sarif:
        raise TablewalkError("audit: --json or --sarif, not both")
    accepted = read_baseline(baseline) if baseline else []
    run = audit(paths, annotations)
    findings, unused = without_accepted(run.findings, accepted)
    if as_json_:
        click.echo(json.dumps(as_json(run, findings, with_census)))
    elif sarif:
        click.echo(json.dumps(as_sarif(findings, __version__)))
    else:
        for f in findings:
            click.echo(escape(f"{f.file}:{f.line}: warning: {f.function}(): {f.message} [{f.rule}]"))
        for s in census(run, findings) if with_census else ():
            click.echo(escape(f"{s.file}:{s.line}: {s.call} in {s.function}(): {s.verdict}"))
        if coverage:
            _coverage(run)
    for a in unused:
        click.echo(escape(f"{baseline}: covers nothing: {a.rule} in {a.file} {a.function}()"), err=True)
    return int(bool(findings))


def _coverage(run: Audit) -> None:
    c = run.coverage
    click.echo(f"{c.files} files, {c.files_of_interest} of interest; {c.functions} functions, {c.calls} calls")
    for note in (*c.macros, *c.notes):
        click.echo(escape(f"{note.file}:{note.line}: {note.what}" if note.line else f"{note.file}: {note.what}"))
