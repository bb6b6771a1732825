import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rung import __version__
from rung.interrupts import Interrupts

# Plain help: rich would double the time that --help takes.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rung {__version__}")
        raise typer.Exit


@app.callback()
def rung(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Start a Python backend at one of four stages of growth, and carry it to each next one."""


@app.command()
def new(
    dest: Annotated[Path, typer.Argument(help="Where: a new folder, or an empty one.")],
    stage: Annotated[
        str | None, typer.Option(metavar="N", help="The stage to start at; 1 unless you say.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Answer a question; may be repeated."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer questions from a YAML file.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing: defaults for what is not answered.")
    ] = False,
    no_git: Annotated[
        bool, typer.Option("--no-git", help="Make no repository and no first commit.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The template: a checkout or a git URL. RUNG_TEMPLATE says the same; "
            "otherwise it is where rung was installed from.",
        ),
    ] = None,
) -> None:
    """Create a project: rendered, locked and committed."""
    interrupts = Interrupts()  # Before the imports, which take as long as a quick Ctrl-C.
    from rung.answers import parse_answers, read_answers
    from rung.new import create_project

    given = read_answers(answers) if answers else {}
    given |= parse_answers(data or [])
    given |= {"stage": stage} if stage is not None else {}
    created = create_project(
        dest,
        given,
        template=template,
        ask=not defaults and sys.stdin.isatty() and sys.stdout.isatty(),
        commit=not no_git,
        interrupts=interrupts,
    )
    print(f"Created {dest} at {created}. Next:\n")
    if dest != Path():
        print(f"    cd {shlex.quote(str(dest))}")
    print("    make dev")
