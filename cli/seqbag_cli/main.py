"""The `seqbag` command: finds the verb, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from seqbag import __version__
from seqbag.errors import DataError, SeqbagError, UsageError
from seqbag_cli import interrupt
from seqbag_cli.options import tell

INTERRUPTED = 130

# What `seqbag --help` prints; a command's module is imported when the command is used.
COMMANDS = {
    "train": ("seqbag_cli.train", "Train a net on labelled rows and write a model file."),
    "evaluate": ("seqbag_cli.evaluate", "Measure a model on labelled rows."),
    "predict": ("seqbag_cli.predict", "Classify rows, or the lines of a stream."),
    "export": ("seqbag_cli.export", "Write a model as a small, fast file: bits for weights and activations."),
    "inspect": ("seqbag_cli.inspect_", "Show what a model is made of and what it looks for."),
}


class Verbs(click.Group):
    """The commands, imported one at a time, and the one place where errors become messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.disable()  # what is imported stays, and looking for garbage in it takes a tenth of a second
        try:
            command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        finally:
            gc.freeze()
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command of `args` (default: the process's arguments) and exit."""
        interrupt.catch()
        code = self._run(list(sys.argv[1:] if args is None else args))
        if code and args is None:  # the process is ours to end
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            os._exit(code)  # a thread may still be compiling what nobody waits for any more
        sys.exit(code)

    def _run(self, args: list[str]) -> int:
        try:
            with self.make_context("seqbag", args) as context:
                self.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except BaseException as error:
            return _explain(error)
        return 0


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Example: seqbag train --source logs.parquet",
)
@click.version_option(__version__, message="seqbag %(version)s")
def cli() -> None:
    """Train convolutional nets on logs and images, one layer at a time, by counting patches.

    Exit codes: 0 done, 2 wrong usage, 3 data that cannot be used, 4 a model file that cannot be used, 130 interrupted.
    """


def _explain(error: BaseException) -> int:
    """Say on one line what went wrong, and return the exit code. What is nobody's mistake but ours is raised on."""
    if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return _say("interrupted", INTERRUPTED)
    if isinstance(error, SeqbagError):
        return _say(str(error), error.exit_code)
    if isinstance(error, click.ClickException):
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "seqbag"
        return _say(f"{error.format_message().rstrip('.')} (see `{command} --help`)", UsageError.exit_code)
    if isinstance(error, MemoryError):
        return _say(
            "out of memory: lower --memory, --codebook or --filters, or train on fewer rows", DataError.exit_code
        )
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return _say(f"{named}{error.strerror or error}", DataError.exit_code)
    raise error


def _say(message: str, code: int) -> int:
    tell(sys.stderr, f"seqbag: {' '.join(message.split())}")
    return code
