"""The command line.

Each command is a short function; what it needs is imported when it runs, so that help is instant.
"""

import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from salakseg import __version__
from salakseg.cli import (
    assessing,
    checking,
    demo,
    diagnosing,
    differing,
    doctoring,
    exporting,
    info,
    packing,
    predicting,
    preparing,
    recipes,
    reporting,
    runs,
    splitting,
    suggesting,
    training,
)
from salakseg.cli.console import INTERRUPTED, say, say_error
from salakseg.errors import SalaksegError

# torch's threads otherwise spin while they wait for each other: with one other busy process on a two-core machine a
# training step then takes twenty times as long. It must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class _Commands(TyperGroup):
    """Turns errors into one line and an exit status; ``--verbose`` may stand anywhere on the line."""

    # The context is click's, which some versions of typer bring along under their own name
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        ctx.meta["verbose"] = "--verbose" in args
        return super().parse_args(ctx, [arg for arg in args if arg != "--verbose"])

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        try:
            return super().invoke(ctx)
        except SalaksegError as error:
            if ctx.meta["verbose"]:
                traceback.print_exc()
            say_error(f"salakseg: {error}")
            ctx.exit(1)
        except KeyboardInterrupt:
            say("salakseg: interrupted")
            ctx.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Land-cover maps of salak farms from drone orthomosaics.",
    epilog="Start with: salakseg demo --out demo. Any command takes --verbose, which shows the traceback of an error.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"salakseg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("pack")(packing.pack)
app.command("check")(checking.check)
app.command("stats")(checking.stats)
app.add_typer(splitting.app, name="splits")
app.command("prepare")(preparing.prepare)
app.command("train")(training.train)
app.command("runs")(runs.runs)
app.add_typer(recipes.app, name="recipes")
app.command("diagnose")(diagnosing.diagnose)
app.command("report")(reporting.report)
app.command("export")(exporting.export)
app.command("info")(info.info)
app.command("predict")(predicting.predict)
app.command("suggest")(suggesting.suggest)
app.command("sample")(assessing.sample)
app.command("accuracy")(assessing.accuracy)
app.command("diff")(differing.diff)
app.command("doctor")(doctoring.doctor)
app.command("demo")(demo.demo)


def main() -> None:
    """Entry point of the ``salakseg`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not cost the result
    try:
        app()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
