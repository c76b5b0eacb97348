"""``salakseg recipes`` and ``salakseg recipes show``."""

from typing import Annotated

import typer

from salakseg.cli.console import say, stdout
from salakseg.cli.tables import show as show_table
from salakseg.cli.tables import table

app = typer.Typer(help="List the recipes and what they are for, or show all values of one.")


@app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the recipes and what they are for, or show all values of one."""
    from salakseg.train.explain import about_recipes

    if context.invoked_subcommand is not None:
        return
    columns = ("recipe", "builds on", "what it is for")
    rows = [[about.name, " <- ".join(about.chain[:-1]) or "-", about.purpose] for about in about_recipes()]
    show_table(stdout, table(columns, rows, left=columns, fold=columns[-1]))
    say("every value with its meaning: salakseg recipes show NAME; what would run here: salakseg train --dry-run")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or a TOML file.")],
) -> None:
    """Print every value of a recipe with its meaning and origin, as a TOML file to copy and change."""
    from salakseg.train.explain import explain
    from salakseg.train.recipe import resolve

    stdout.print(explain(resolve(name), name), markup=False, soft_wrap=True, end="")
