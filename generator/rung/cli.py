"""The commands and options that a person types."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Exit, TyperException

from rung import __version__
from rung.errors import UsageError, in_shell
from rung.fleet.commands import fleet
from rung.interrupts import Interrupts

# Plain help: rich would double the time that --help takes.
app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def run() -> int:
    """Run the command that was typed; returns the exit code."""
    command: Any = typer.main.get_command(app)
    words = _typed(sys.argv[1:])
    # Typer acts on this variable. It means something only while a shell completes a word.
    if not {"COMP_WORDS", "_TYPER_COMPLETE_ARGS"} & os.environ.keys():
        os.environ.pop("_RUNG_COMPLETE", None)
    if words[1:] and words[0] in {"--install-completion", "--show-completion"}:
        raise UsageError(f"rung {words[0]} takes no value: it is for the shell that you use.")
    try:
        return command.main(words, prog_name="rung", standalone_mode=False) or 0
    except Exit as ended:
        return ended.exit_code
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if not words and context:
            print(context.get_help())
            return 2
        said = " ".join(error.format_message().split())[:300]
        path = context.command_path if context else _command_in(command, words)
        stop = "" if said.endswith((".", "?")) else "."
        raise UsageError(f"{said}{stop} See {path} --help.") from error


def _typed(words: list[str]) -> list[str]:
    """The words with ~ replaced where a shell does not, as in `make new DEST=~/shop` from zsh."""
    for before, word in zip(["rung", *words], words, strict=False):
        if re.fullmatch("(--[a-z-]+=)?", word):  # As a path, it would mean this folder.
            raise UsageError(
                f"There is an empty word after {word or before}. Is a variable not set? Write the "
                "value, or leave the word out."
            )
    home = os.path.expanduser("~")  # noqa: PTH111 - a user without a home must not raise
    return [re.sub("^(--[a-z-]+=)?~(?=/|$)", lambda at: f"{at[1] or ''}{home}", w) for w in words]


def _command_in(command: Any, words: list[str]) -> str:
    """Names the command, because Click does not say which command misses an option's value."""
    path = ["rung"]
    for word in words:
        if (command := getattr(command, "commands", {}).get(word)) is None:
            break
        path.append(word)
    return " ".join(path)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rung {__version__}")
        raise typer.Exit


@app.callback()
def rung(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Start a Python backend at one of four stages of growth, and advance it stage by stage."""
    if context.invoked_subcommand != "status":  # With an absolute path, it needs no folder.
        _refuse_deleted_folder()


def _refuse_deleted_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("This shell's folder was deleted. Change to one that exists.") from error


@app.command()
def new(
    dest: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    stage: Annotated[
        str | None, typer.Option(metavar="N", help="The stage to start at. Default: 1.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Answer a question. May be repeated."),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Answer questions from a YAML file.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Take the answers of another repo as defaults: its folder, its git URL, a "
            "YAML file, or the line that rung status shows.",
        ),
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Ask nothing; use the default answers.")
    ] = False,
    no_git: Annotated[
        bool, typer.Option("--no-git", help="Do not create a repository or a first commit.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The template: a checkout or a git URL. Also: the variable RUNG_TEMPLATE. "
            "Default: where rung was installed from.",
        ),
    ] = None,
) -> None:
    """Create a repo, locked and committed."""
    interrupts = Interrupts()  # Before the imports: a Ctrl-C may arrive while they run.
    from rung.answers import Answer, parse_answers, read_answers
    from rung.new import create_project
    from rung.presets import answers_like, company_defaults

    def given() -> dict[str, Answer]:
        read = read_answers(answers) if answers else {}
        return read | parse_answers(data or []) | ({"stage": stage} if stage is not None else {})

    create_project(
        dest,
        given,
        lambda: company_defaults() | ({} if like is None else answers_like(like)),
        template=template,
        ask=not defaults and sys.stdin.isatty() and sys.stdout.isatty(),
        commit=not no_git,
        interrupts=interrupts,
    )
    print(f"Created {dest}. Next:\n")
    if dest != Path():
        print(f"    cd {in_shell(dest)}")
    print("    make dev")


_PROJECT = Annotated[Path, typer.Argument(help="The repo, or any folder in it.")]
_DATA = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Change an answer. May be repeated."),
]
_TEMPLATE = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="The template's new location, if it has moved."),
]
_DRY_RUN = Annotated[bool, typer.Option("--dry-run", help="Show the changes; make none.")]
_DIFF = Annotated[bool, typer.Option("--diff", help="Show the changed lines.")]
_COMMIT = Annotated[bool, typer.Option("--commit", help="Commit the result.")]
_KEEP_CONFLICTS = Annotated[
    bool,
    typer.Option("--keep-conflicts", help="Apply conflicts too, marked in the files."),
]


@app.command()
def status(
    path: _PROJECT = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show a repo's stage and what comes next."""
    if not path.is_absolute():
        _refuse_deleted_folder()
    from rung.errors import printable
    from rung.status import described, status_of

    found = status_of(path)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        print("\n".join(printable(line) for line in described(found)))


@app.command()
def advance(
    path: _PROJECT = Path(),
    to: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The stage to reach. Default: the next one. With --data, also the current one.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask (for scripts).")] = False,
    dry_run: _DRY_RUN = False,
    diff: _DIFF = False,
    commit: _COMMIT = False,
    keep_conflicts: _KEEP_CONFLICTS = False,
    data: _DATA = None,
    template: _TEMPLATE = None,
) -> None:
    """Advance a repo to a later stage."""
    interrupts = Interrupts()
    from rung.advance import Options
    from rung.advance import advance as take
    from rung.answers import parse_answers
    from rung.report import Conversation

    options = Options(parse_answers(data or []), template, commit, keep_conflicts)
    person = Conversation(ask=not yes, dry_run=dry_run, diff=diff)
    person.conclude(take(path, to, options, person, interrupts), commit=commit)


@app.command()
def upgrade(
    path: _PROJECT = Path(),
    ref: Annotated[
        str | None,
        typer.Option(metavar="V", help="A tag, branch or commit. Default: the newest version."),
    ] = None,
    dry_run: _DRY_RUN = False,
    diff: _DIFF = False,
    commit: _COMMIT = False,
    keep_conflicts: _KEEP_CONFLICTS = False,
    data: _DATA = None,
    template: _TEMPLATE = None,
) -> None:
    """Upgrade a repo to a newer template."""
    interrupts = Interrupts()
    from rung.advance import Options
    from rung.advance import upgrade as take
    from rung.answers import parse_answers
    from rung.report import Conversation

    options = Options(parse_answers(data or []), template, commit, keep_conflicts)
    person = Conversation(ask=False, dry_run=dry_run, diff=diff)
    person.conclude(take(path, ref, options, person, interrupts), commit=commit)


@app.command(
    short_help='Name the one bottleneck, or say "stay".',
    context_settings={"ignore_unknown_options": True},
)
def doctor(
    words: Annotated[list[str] | None, typer.Argument(metavar="[PATH] [OPTION]...")] = None,
) -> None:
    """Name the next bottleneck of this service, or say "stay".

    Options come after the path: rung doctor . --log app.log --seconds 60. In the repo,
    make doctor ARGS=--help lists all of them.
    """
    from rung.doctor import run_doctor

    first, *options = words or ["."]
    if first.startswith("-"):
        first, options = ".", [first, *options]
    run_doctor(Path(first), options)


app.add_typer(fleet, name="fleet", help="Show or upgrade the repos of a fleet.")


@app.command()
def undo(path: _PROJECT = Path()) -> None:
    """Undo the last advance or upgrade."""
    interrupts = Interrupts()
    from rung.undo import undo as undo_step

    print(undo_step(path, interrupts))
