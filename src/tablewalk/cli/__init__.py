# SPDX-License-Identifier: GPL-2.0-only
"""The command line: one module a verb, loaded when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

import click

from tablewalk import __version__
from tablewalk.errors import TablewalkError, escape

EXIT_BAD = 2
_STDOUT = "standard output"
EXIT_INTERRUPTED = 128 + signal.SIGINT


class VerbGroup(click.Group):
    """Finds verb VERB as `command` in `tablewalk/cli/VERB.py` (`import_.py` is the verb `import`)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(
            m.name.rstrip("_").replace("_", "-")
            for m in pkgutil.iter_modules(__path__)
            if not m.name.startswith("_")
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = cmd_name.replace("-", "_")
        if module + "_" in (m.name for m in pkgutil.iter_modules(__path__)):
            module += "_"
        command = importlib.import_module(f"tablewalk.cli.{module}").command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=VerbGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tablewalk", message="%(prog)s %(version)s")
@click.pass_context
def group(ctx: click.Context) -> None:
    """An executable model of the Linux page-table life cycle.

    Record a real program, replay its memory activity under any kernel release, option and
    architecture, and see how much page-table memory it takes, when, and why.

    Exit status: 0 fine, 1 found something (a disagreement, say), 2 wrong use or bad input.
    """
    if ctx.invoked_subcommand is None:
        raise TablewalkError("give a command; tablewalk --help lists them")


def run(args: Sequence[str]) -> int:
    """Run the command line on `args` and return its status; whatever goes wrong is raised.

    A verb gives its status as its return value (None is 0) or through `click.Context.exit`.
    """
    # Not group.main(): it ends a broken pipe with status 1, which says "found something" here.
    try:
        with group.make_context("tablewalk", list(args)) as ctx:
            status = group.invoke(ctx)
    except click.exceptions.Exit as e:
        status = e.exit_code
    sys.stdout.flush()
    return status if isinstance(status, int) else 0


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `args` (default: sys.argv) and exit with its status.

    Bad input is one line on stderr and status 2; Ctrl-C is one line and status 130.
    """
    if type(sys.stdout) is io.TextIOWrapper:
        out = sys.stdout
        sys.stdout = _Stdout(out.buffer, out.encoding, out.errors, None, out.line_buffering, out.write_through)
    try:
        status = run(sys.argv[1:] if args is None else args)
    except click.UsageError as e:
        where = f" (try '{e.ctx.command_path} --help')" if e.ctx else ""
        status = _fail(e.format_message().rstrip(".") + where)
    except click.ClickException as e:
        status = _fail(e.format_message())
    except TablewalkError as e:
        status = _fail(str(e))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted")
        status = EXIT_INTERRUPTED
    except (BrokenPipeError, SystemExit) as e:
        # rich turns a broken pipe into status 1, which says "found something" here.
        if isinstance(e, SystemExit) and not isinstance(e.__context__, BrokenPipeError):
            raise
        # Nobody reads any more: as if SIGPIPE had ended us.
        _give_up_stdout()
        status = 128 + signal.SIGPIPE
    except OSError as e:
        name = f"{os.fsdecode(e.filename)}: " if e.filename is not None else ""
        status = _fail(f"{name}{e.strerror or e}")
        if e.filename == _STDOUT:
            _give_up_stdout()
    except MemoryError:
        status = _fail("out of memory")
    sys.exit(status)


def _give_up_stdout() -> None:
    """Nothing more can be written: drop what is left, or the interpreter complains of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Stdout(io.TextIOWrapper):
    """Standard output whose errors say so, as those of files name the file."""

    def write(self, s: str, /) -> int:
        with _naming_stdout():
            return super().write(s)

    def flush(self) -> None:
        with _naming_stdout():
            super().flush()


@contextlib.contextmanager
def _naming_stdout() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        e.filename = _STDOUT
        raise


def _fail(message: str) -> int:
    """Say `message` as one line on stderr; returns the status for wrong use or bad input."""
    with contextlib.suppress(OSError):  # stderr may be gone too: the status is all that is left to say
        print(f"tablewalk: {escape(' '.join(message.splitlines()))}", file=sys.stderr, flush=True)
    return EXIT_BAD
