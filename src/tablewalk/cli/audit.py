# SPDX-License-Identifier: GPL-2.0-only
"""The verb `audit`: kernel C source against the page-table access rules."""

from __future__ import annotations

from pathlib import Path

import click

from tablewalk.audit.run import audit
from tablewalk.errors import escape


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(paths: tuple[Path, ...]) -> int:
    """Check kernel C source for the page-table access rules.

    One line for each place that breaks a rule, as a compiler's warnings.  docs/audit.md explains the rules.
    """
    run = audit(paths)
    for f in run.findings:
        click.echo(escape(f"{f.file}:{f.line}: warning: {f.function}(): {f.message} [{f.rule}]"))
    return int(bool(run.findings))
