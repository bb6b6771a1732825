"""Shows a project's stage, template version and edited files. Changes nothing."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from rung import git, stages
from rung.edited_files import edited_files
from rung.errors import RungError, without_password
from rung.lock import finish_first
from rung.migrations import heads
from rung.origin import Origin, is_newer, origin_of, versions
from rung.presets import preset
from rung.project import Project, locate, read_project


@dataclass(frozen=True)
class Status:
    folder: str
    stage: int
    stage_name: str
    next_stage: str | None
    next_answers: str | None
    template: str
    version: str
    newer_versions: list[str]
    edited: list[str] | None
    """Rung's files that differ from the template's; None when Rung cannot tell."""
    migration_heads: list[str]
    preset: str
    """Its answers for `rung new --like`, on one line."""
    problems: list[str]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def status_of(path: Path) -> Status:
    git.fence()
    folder, git_dir = locate(path)
    finish_first(folder, git_dir)
    project = read_project(folder, git_dir)
    problems: list[str] = []
    newer: list[str] = []
    edited: list[str] | None = None
    try:
        origin = origin_of(project, None)
        newer = [tag for tag in versions(origin) if is_newer(tag, project.version)]
        edited = _edited(project, origin)
    except RungError as error:
        problems.append(without_password(str(error)))
    following = next((s for s in stages.LADDER if s.number == project.stage + 1), None)
    return Status(
        folder=str(folder),
        stage=project.stage,
        stage_name=stages.named(project.stage),
        next_stage=str(following) if following else None,
        next_answers=f"{following.breaks}. It brings {following.arrives}" if following else None,
        template=without_password(project.src),
        version=project.version,
        newer_versions=newer,
        edited=edited,
        migration_heads=heads(folder),
        preset=preset(project.answers),
        problems=problems,
    )


def _edited(project: Project, origin: Origin) -> list[str] | None:
    if origin.folder is None:
        return None
    version = origin.named(project.version)
    return edited_files(project.folder, project.answers, origin.folder, version)


def described(status: Status) -> list[str]:
    lines = [
        f"{status.folder}",
        f"  stage      {status.stage_name.removeprefix('stage ')}",
        f"  template   {status.version} of {status.template}",
        f"  newer      {', '.join(status.newer_versions) or 'none'}"
        + ("  (rung upgrade)" if status.newer_versions else ""),
    ]
    following = "none: this is the last stage"
    if status.next_stage:
        following = f"{status.next_stage}, for {status.next_answers}"
    lines.append(f"  next       {following}")
    if status.edited is None:
        edited = ["not known: see rung upgrade --dry-run or rung advance --dry-run"]
    else:
        edited = list(status.edited) or ["none"]
    lines.append(f"  edited     {edited[0]}")
    lines += [f"             {path}" for path in edited[1:]]
    found = status.migration_heads
    one = "a single head" if len(found) == 1 else f"{len(found)} heads"
    names = f" ({', '.join(found)})" if found else ""
    lines.append(f"  migrations {one}{names}")
    lines.append(f"  another    rung new DEST --like {shlex.quote(status.preset)}")
    lines += [f"  problem    {problem}" for problem in status.problems]
    return lines
