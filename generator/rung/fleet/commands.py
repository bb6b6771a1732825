"""The commands `rung fleet` and `rung fleet upgrade`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rung.errors import RungError
from rung.interrupts import hear_a_kill_as_ctrl_c


class _ReportByDefault(TyperGroup):
    """`rung fleet SOURCE` means `rung fleet report SOURCE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["report", *args]
        return super().parse_args(ctx, args)


fleet = typer.Typer(cls=_ReportByDefault, rich_markup_mode=None)

_SOURCES = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A folder of repos, a file with a path or a git URL on each line, github:ORG or "
        "gitlab:GROUP (with GITHUB_TOKEN or GITLAB_TOKEN set).",
        show_default=False,
    ),
]
_TEMPLATE = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="The template to compare with: a checkout or a git URL. Default: where rung was "
        "installed from.",
    ),
]


@fleet.command()
def report(
    sources: _SOURCES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    drift: Annotated[
        bool, typer.Option("--drift", help="Also list the files of Rung's that were edited.")
    ] = False,
    max_behind: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Exit 1 if a repo is more than N versions behind."),
    ] = None,
    min_version: Annotated[
        str | None, typer.Option(metavar="V", help="Exit 1 if a repo has an older version.")
    ] = None,
    min_stage: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=4, help="Exit 1 if a repo is at an earlier stage."),
    ] = None,
    template: _TEMPLATE = None,
) -> None:
    """Show the stage and version of each repo. `rung fleet upgrade` upgrades them."""
    from rung import git
    from rung.fleet.line import measured_by, version_to_reach
    from rung.fleet.sources import find
    from rung.fleet.survey import WANTED, Policy, survey
    from rung.fleet.table import summary, table

    policy = Policy(max_behind, min_version, min_stage)
    hear_a_kill_as_ctrl_c()
    git.fence()
    with measured_by(template, needed=drift or max_behind is not None, objects=drift) as line:
        if line and max_behind is not None:
            version_to_reach(line, None)
        rows = survey(find(sources, WANTED), line, drift=drift)
    broken = {row.place: said for row in rows if (said := policy.broken_by(row))}
    if as_json:
        repos = [row.as_json() | {"breaks": broken.get(row.place, [])} for row in rows]
        newest = line.tags[-1] if line and line.tags else None
        print(json.dumps({"newest": newest, "repos": repos}, indent=2))
    else:
        for text in table(rows, drift=drift):
            print(text)
        print(f"\n{summary(rows)}")
    if rows and all(row.is_unread for row in rows):
        raise RungError("No repo can be read. Check the sources, the network and your access.")
    if broken:
        lines = [f"  {row.repo}: {'; '.join(broken[row.place])}" for row in rows
                 if row.place in broken]  # fmt: skip
        raise RungError(f"{len(broken)} of {len(rows)} repos break the policy:", *lines)


@fleet.command()
def upgrade(
    sources: _SOURCES,
    ref: Annotated[
        str | None, typer.Option(metavar="V", help="The version. Default: the newest one.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show which repos would merge; change nothing.")
    ] = False,
    per_minute: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most N pull requests a minute.")
    ] = 20,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Answer a new question. May be repeated."),
    ] = None,
    state: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="A log of finished repos. The next run continues from it."
        ),
    ] = Path("rung-fleet.jsonl"),
    template: _TEMPLATE = None,
) -> None:
    """Upgrade each repo on a branch, push it, and open a pull request."""
    from contextlib import nullcontext

    from rung import git
    from rung.answers import parse_answers
    from rung.errors import in_shell, printable
    from rung.fleet.line import measured_by, version_to_reach
    from rung.fleet.sources import find
    from rung.fleet.survey import OTHERS, WANTED, survey
    from rung.fleet.upgrade import Pace, Upgrade, all_upgraded, state_in

    given = parse_answers(data or [])
    hear_a_kill_as_ctrl_c()
    git.fence()
    failed = count = 0
    with measured_by(template, needed=True, objects=False) as line:
        assert line  # noqa: S101 - needed
        version = version_to_reach(line, ref)
        found = find(sources, WANTED)
        if not dry_run:
            git.require_identity(Path.cwd(), otherwise="pass --dry-run")
        with nullcontext() if dry_run else state_in(state) as remembered:
            take = Upgrade(line, version, remembered, Pace(per_minute), given)
            rows = survey(found, line, drift=False)
            pairs = list(zip(found, rows, strict=True))
            # The loop is inside, because an interrupt may come while a line is printed.
            with all_upgraded(pairs, take) as outcomes:
                for outcome in outcomes:
                    words = f": {outcome.words}" if outcome.words else ""
                    print(printable(f"{outcome.kind:<9} {outcome.repo}{words}"), flush=True)
                    failed += outcome.failed
                    count += 1
    if failed:
        raise RungError(f"{failed} of {count} repos cannot be upgraded to {version}.")
    if any(row.problem == OTHERS for row in rows) and all(row.problem for row in rows):
        raise RungError(
            f"No repo comes from the template {line.origin.src}. If the template has moved there, "
            f"run in each repo: rung upgrade --template {in_shell(line.origin.src)} --commit"
        )
