"""The commands `rung fleet` and `rung fleet upgrade`."""

import json
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rung.errors import RungError


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
        bool, typer.Option("--drift", help="List the edited files of Rung's too.")
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
    """Show where each repo of a fleet stands. `rung fleet upgrade` upgrades them."""
    from rung import git
    from rung.fleet.line import measured_by
    from rung.fleet.sources import find
    from rung.fleet.survey import WANTED, Policy, survey
    from rung.fleet.table import summary, table

    policy = Policy(max_behind, min_version, min_stage)
    git.fence()
    with measured_by(template, needed=drift or max_behind is not None, objects=drift) as line:
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
    if broken:
        lines = [f"  {row.repo}: {'; '.join(broken[row.place])}" for row in rows
                 if row.place in broken]  # fmt: skip
        raise RungError(f"{len(broken)} of {len(rows)} repos break the policy:", *lines)
