# SPDX-License-Identifier: GPL-2.0-only
"""The verb `audit`: kernel C source against the page-table access rules."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from textwrap import indent

import click

from tablewalk import __version__
from tablewalk.audit.baseline import Accepted, read_baseline, without_accepted
from tablewalk.audit.changes import Change, of_git, of_patch
from tablewalk.audit.compare import Compared, compare, introduced
from tablewalk.audit.names import tree_root
from tablewalk.audit.output import as_json, as_sarif, census, contracts
from tablewalk.audit.reader import Reader
from tablewalk.audit.rules import RULES, scenario_of
from tablewalk.audit.run import Audit, Finding, audit
from tablewalk.errors import TablewalkError, escape
from tablewalk.machine.native import cache_dir

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TREE = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--rules", "list_rules", is_flag=True, help="The rules, with examples; with --json, too.")
@click.option("--diff", metavar="PATCH|REV[..[REV]]", help="Only what a patch, or commits, introduce.")
@click.option("--compare", "trees", type=_TREE, nargs=2, metavar="OLD NEW", help="What two trees do not have alike.")
@click.option("--baseline", type=_FILE, metavar="FILE", help="Accepted findings, with reasons.")
@click.option("--annotations", type=_FILE, multiple=True, metavar="FILE", help="Contracts of functions; repeatable.")
@click.option("--coverage", is_flag=True, help="What was looked at, and all that was not understood.")
@click.option("--census", "with_census", is_flag=True, help="Every call of the interface, with its verdict.")
@click.option("--contracts", "with_contracts", is_flag=True, help="What functions do to tables of their callers.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON object.")
@click.option("--sarif", is_flag=True, help="SARIF 2.1.0.")
@click.option("--cache/--no-cache", "cached", default=True, help="Remember which files have nothing of interest.")
@click.option("--jobs", type=click.IntRange(1, 64), default=min(os.cpu_count() or 1, 8), help="Processes that read.")
def command(
    paths: tuple[Path, ...],
    list_rules: bool,
    diff: str | None,
    trees: tuple[Path, Path] | None,
    baseline: Path | None,
    annotations: tuple[Path, ...],
    coverage: bool,
    with_census: bool,
    with_contracts: bool,
    as_json_: bool,
    sarif: bool,
    cached: bool,
    jobs: int,
) -> int:
    """Check kernel C source for the page-table access rules.

    One line for each place that breaks a rule, as a compiler's warnings.  docs/audit.md explains the rules.
    Exit status 1 if there is one.
    """
    if list_rules:
        click.echo(json.dumps([{"id": name, **asdict(rule)} for name, rule in RULES.items()]) if as_json_ else _rules())
        return 0
    gc.disable()  # the states of the paths are many and without circles, and the process ends with the verb
    if as_json_ and sarif:
        raise TablewalkError("audit: --json or --sarif, not both")
    accepted = read_baseline(baseline) if baseline else []
    if trees is not None:
        if diff or sarif or with_census or with_contracts or coverage:
            raise TablewalkError(
                "audit: --compare has --json, --baseline and --annotations, and PATHs within both trees"
            )
        return _compare(compare(*trees, map(str, paths), annotations, jobs), accepted, as_json_)
    if diff is not None:
        change = _change(diff, paths)
        paths = tuple(p.resolve() for p in paths) or _around(change)
        run, found = introduced(paths, change, annotations, Reader(jobs=jobs)) if paths else (audit([]), [])
    elif not paths:
        raise TablewalkError("audit: give files or directories of C source")
    else:
        run = audit(paths, annotations, Reader(_cache(paths) if cached else None, jobs))
        found = run.findings
    findings, unused = without_accepted(found, accepted)
    if as_json_:
        click.echo(json.dumps(as_json(run, findings, with_census)))
    elif sarif:
        click.echo(json.dumps(as_sarif(findings, __version__)))
    else:
        for f in findings:
            click.echo(_line(f))
        for s in census(run, findings) if with_census else ():
            click.echo(escape(f"{s.file}:{s.line}: {s.call} in {s.function}(): {s.verdict}"))
        for file, line, name, said in contracts(run) if with_contracts else ():
            click.echo(escape(f"{file}:{line}: {name}(): {'; '.join(said)}"))
        if coverage:
            _coverage(run)
    for a in unused if diff is None else ():
        click.echo(escape(f"{baseline}: covers nothing: {a.rule} in {a.file} {a.function}()"), err=True)
    return int(bool(findings))


def _rules() -> str:
    lines = []
    for name, rule in RULES.items():
        lines += [f"{name}: {rule.statement}", f"    from {rule.source}", f"    not reported: {rule.unless}"]
        if rule.invariant:
            shown = f": tablewalk explore {rule.command()}" if rule.scenario else ""
            lines.append(f"    who breaks it breaks {rule.invariant} of the model{shown}")
        for kind, text in (("bad", rule.bad), ("good", rule.good)):
            lines += [f"    {kind}:", indent(text, " " * 8)]
    return "\n".join(lines)


def _line(f: Finding) -> str:
    scenario = scenario_of(f.rule, f.function)
    see = f" (explore {scenario})" if scenario else ""
    return escape(f"{f.file}:{f.line}: warning: {f.function}(): {f.message} [{f.rule}]{see}")


def _coverage(run: Audit) -> None:
    c = run.coverage
    click.echo(f"{c.files} files, {c.files_of_interest} of interest; {c.functions} functions, {c.calls} calls")
    for note in (*c.macros, *c.notes):
        click.echo(escape(f"{note.file}:{note.line}: {note.what}" if note.line else f"{note.file}: {note.what}"))


def _cache(paths: tuple[Path, ...]) -> Path:
    """A file for these paths: an audit of part of a tree leaves what is known of the rest alone."""
    name = "\n".join(sorted(str(p.resolve()) for p in paths))
    return cache_dir() / f"audit-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.json"


def _change(diff: str, paths: tuple[Path, ...]) -> Change:
    """A file is a patch, anything else names commits."""
    where = (paths[0] if paths else Path()).resolve()
    if Path(diff).is_file():
        return of_patch(Path(diff), tree_root(where) or (where if where.is_dir() else where.parent))
    return of_git(diff, where if where.is_dir() else where.parent)


def _around(change: Change) -> tuple[Path, ...]:
    """The directories of the changed files, where most functions are that these call or that call them."""
    return tuple(sorted({p for f in change.after if (p := Path(f).parent).is_dir()}))


def _compare(found: Compared, accepted: list[Accepted], as_json_: bool) -> int:
    gone, _ = without_accepted(found.gone, accepted)
    new, _ = without_accepted(found.new, accepted)
    if as_json_:
        trees = {"old": as_json(found.old, gone, False), "new": as_json(found.new_tree, new, False)}
        click.echo(json.dumps(trees))
        return int(bool(new))
    for sign, findings in (("-", gone), ("+", new)):
        for f in findings:
            click.echo(f"{sign} {_line(f)}")
    before, after = (Counter(s.call for s in census(r, r.findings)) for r in (found.old, found.new_tree))
    for call in sorted(before | after):
        click.echo(f"{call}: {before[call]} calls, then {after[call]}")
    both = len(found.old.findings) - len(found.gone)
    click.echo(f"{len(gone)} findings gone, {len(new)} new, {both} in both")
    return int(bool(new))
