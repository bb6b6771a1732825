import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rung import __version__
from rung.errors import UsageError
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


_PROJECT = Annotated[Path, typer.Argument(help="The project, or any folder in it.")]
_DATA = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Answer a question anew; may be repeated."),
]
_TEMPLATE = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Where the template is now, if it is not where it was."),
]
_DRY_RUN = Annotated[
    bool, typer.Option("--dry-run", help="Work it out and show it; change nothing.")
]
_DIFF = Annotated[bool, typer.Option("--diff", help="Show the text of what changes.")]
_COMMIT = Annotated[bool, typer.Option("--commit", help="Commit the result.")]
_KEEP_CONFLICTS = Annotated[
    bool,
    typer.Option("--keep-conflicts", help="Apply it also with conflicts, marked in the files."),
]


@app.command()
def status(
    path: _PROJECT = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show where a project stands, and what a step would bring."""
    from rung.status import spoken, status_of

    found = status_of(path)
    print(json.dumps(found.as_json(), indent=2) if as_json else spoken(found))


@app.command()
def advance(
    path: _PROJECT = Path(),
    to: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="To this stage; the next one unless you say. With --data also the present one.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: for scripts.")] = False,
    dry_run: _DRY_RUN = False,
    diff: _DIFF = False,
    commit: _COMMIT = False,
    keep_conflicts: _KEEP_CONFLICTS = False,
    data: _DATA = None,
    template: _TEMPLATE = None,
) -> None:
    """Carry a project to its next stage, with all that was written since."""
    interrupts = Interrupts()
    from rung.advance import Options
    from rung.advance import advance as take
    from rung.answers import parse_answers
    from rung.report import Conversation

    if not (yes or dry_run or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise UsageError(
            "Advancing asks first, and there is no terminal to ask at. Pass --yes, or --dry-run."
        )
    options = Options(parse_answers(data or []), template, commit, keep_conflicts)
    person = Conversation(ask=not yes, dry_run=dry_run, diff=diff)
    person.conclude(take(path, to, options, person, interrupts), committed=commit)


@app.command()
def upgrade(
    path: _PROJECT = Path(),
    ref: Annotated[
        str | None,
        typer.Option(metavar="V", help="A tag, branch or commit; the newest version otherwise."),
    ] = None,
    dry_run: _DRY_RUN = False,
    diff: _DIFF = False,
    commit: _COMMIT = False,
    keep_conflicts: _KEEP_CONFLICTS = False,
    data: _DATA = None,
    template: _TEMPLATE = None,
) -> None:
    """Carry a project to a newer version of its template, at the same stage."""
    interrupts = Interrupts()
    from rung.advance import Options
    from rung.advance import upgrade as take
    from rung.answers import parse_answers
    from rung.report import Conversation

    options = Options(parse_answers(data or []), template, commit, keep_conflicts)
    person = Conversation(ask=False, dry_run=dry_run, diff=diff)
    person.conclude(take(path, ref, options, person, interrupts), committed=commit)
