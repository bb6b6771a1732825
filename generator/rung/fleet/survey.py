"""Reads the stage and version of each repo of a fleet, and checks a policy. Changes nothing."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from rung.doctor import VERDICT
from rung.edited_files import unedited_files
from rung.errors import RungError, UsageError, without_password
from rung.fleet.blobs import MOST_BYTES, RepoError, files_at_head, git_dir, tree_at_head
from rung.fleet.sources import Found
from rung.origin import Origin, is_newer, version_of, versions
from rung.project import RUNGS, checked
from rung.reading import UnreadableError, parse_yaml, read_bytes
from rung.rendering import ANSWERS_FILE

VERDICT_FILE = str(VERDICT)
WANTED = (ANSWERS_FILE, VERDICT_FILE)

NOT_RUNGS = f"it has no {ANSWERS_FILE} at its top"
OTHERS = "it comes from another template"

_NAMES = {"project_name", "project_slug", "description", "team", "stage"}
_LONGEST = 100


@dataclass(frozen=True)
class Row:
    repo: str
    place: str
    stage: int | None = None
    version: str = ""
    template: str = ""
    behind: int | None = None
    """How many versions of the template are newer; None when unknown."""
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    owner: str = ""
    doctor: str = ""
    edited: list[str] | None = None
    """Rung's files that differ from the template's; None when not asked for."""
    problem: str = ""

    @property
    def is_unread(self) -> bool:
        return self.stage is None and self.problem != NOT_RUNGS

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Policy:
    max_behind: int | None = None
    min_version: str | None = None
    min_stage: int | None = None

    def __post_init__(self) -> None:
        if self.min_version is not None and version_of(self.min_version) is None:
            raise UsageError(
                f"--min-version {self.min_version} is not a version. Write it as v1.2.0."
            )

    def broken_by(self, row: Row) -> list[str]:
        if row.problem == NOT_RUNGS or self == Policy():
            return []
        if row.stage is None:
            return [f"cannot be read: {row.problem}"]
        said: list[str] = []
        if self.max_behind is not None and row.behind is None:
            said.append(f"versions behind are not known: {row.problem}")
        elif self.max_behind is not None and row.behind and row.behind > self.max_behind:
            said.append(f"{row.behind} versions behind, at most {self.max_behind} allowed")
        if self.min_version and is_newer(self.min_version, row.version):
            said.append(f"version {row.version}, at least {self.min_version} required")
        if self.min_stage is not None and row.stage < self.min_stage:
            said.append(f"stage {row.stage}, at least {self.min_stage} required")
        return said


@dataclass(frozen=True)
class Line:
    """The template that a fleet is compared with, and its version tags."""

    origin: Origin
    tags: tuple[str, ...]

    @classmethod
    def of(cls, origin: Origin) -> "Line":
        return cls(origin, tuple(versions(origin)))

    def behind(self, version: str) -> int:
        return _behind(self.tags, version)

    def is_of(self, src: str) -> bool:
        return _plain(src) == _plain(self.origin.src)


@cache
def _behind(tags: tuple[str, ...], version: str) -> int:
    return sum(is_newer(tag, version) for tag in tags)


def _plain(src: str) -> str:
    """A URL and its short forms are one template."""
    for short, host in {"gh:": "github.com/", "gl:": "gitlab.com/"}.items():
        if src.startswith(short):
            src = host + src.removeprefix(short)
    src = re.sub(r"^[a-z0-9+.-]+://(?:[^/@]*@)?", "", src.removeprefix("git+"))
    src = re.sub(r"^[^/@\s]+@([^/:\s]+):", r"\1/", src)
    return re.sub(r"(\.git)?/*$", "", src)


def survey(found: Iterable[Found], line: Line | None, *, drift: bool) -> list[Row]:
    # git's own processes do the work, so two threads a core keep every core busy.
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda one: _row(one, line, drift=drift), found))


def _row(found: Found, line: Line | None, *, drift: bool) -> Row:
    row = Row(_shown(found.name), without_password(found.place))
    if found.problem:
        return replace(row, problem=_shown(found.problem))
    try:
        if found.files is not None and not drift:
            return _filled(row, found, found.files, line, None)
        with git_dir(found) as (folder, variables):
            files = found.files or files_at_head(folder, variables, WANTED)
            now = (lambda: tree_at_head(folder, variables, RUNGS)) if drift else None
            return _filled(row, found, files, line, now)
    except (RepoError, UnreadableError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return replace(row, problem=_shown(without_password(reason or str(error))))


def _filled(
    row: Row,
    found: Found,
    files: Mapping[str, bytes],
    line: Line | None,
    now: Callable[[], Mapping[str, str]] | None,
) -> Row:
    if ANSWERS_FILE not in files:
        raise RepoError(NOT_RUNGS)
    answers = _answers(files[ANSWERS_FILE])
    row = replace(
        row,
        stage=answers["stage"],
        version=answers["_commit"],
        template=without_password(answers["_src_path"]),
        options=_options(answers),
        owner=_shown(team) if isinstance(team := answers.get("team"), str) else "",
        doctor=_verdict(_verdict_file(found, files)),
    )
    if line is None:
        return row
    if not line.is_of(answers["_src_path"]):
        return replace(row, problem=OTHERS)
    row = replace(row, behind=line.behind(row.version))
    if now is None:
        return row
    return _with_edits(row, answers, line, now())


def _with_edits(row: Row, answers: Mapping[str, Any], line: Line, now: Mapping[str, str]) -> Row:
    if line.origin.folder is None:
        return row
    try:
        version = line.origin.named(row.version)
        unedited = unedited_files(answers, line.origin.folder, version, now)
    except RungError:
        unedited = None
    if unedited is None:
        return replace(row, problem="its edited files are not known")
    edited = sorted(path for path, id_ in unedited.items() if now.get(path) != id_)
    return replace(row, edited=edited)


def _answers(content: bytes) -> Mapping[str, Any]:
    if len(content) > MOST_BYTES:
        raise RepoError(f"{ANSWERS_FILE} is larger than {MOST_BYTES >> 10} KiB")
    try:
        answers = checked(parse_yaml(content))
    except UnreadableError as error:
        raise RepoError(f"{ANSWERS_FILE}: {error}") from error
    if len(answers["_commit"]) > _LONGEST:
        raise RepoError(f"_commit in {ANSWERS_FILE} is not a version")
    return answers


def _options(answers: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    return {
        _shown(key): _shown(value) if isinstance(value, str) else value
        for key, value in answers.items()
        if not key.startswith("_")
        and key not in _NAMES
        and isinstance(value, str | int | float | bool)
        and len(str(value)) <= _LONGEST
    }


def _verdict_file(found: Found, files: Mapping[str, bytes]) -> bytes:
    """Read from the work tree, because git ignores .dev. A link may lead anywhere: never follow."""
    file = Path(found.place) / VERDICT_FILE
    if found.is_remote or file.is_symlink() or file.parent.is_symlink():
        return files.get(VERDICT_FILE, b"")
    try:
        return read_bytes(file)
    except UnreadableError:
        return files.get(VERDICT_FILE, b"")


def _verdict(content: bytes) -> str:
    try:
        verdict = json.loads(content)["verdict"]
        if isinstance(verdict, dict):
            verdict = verdict.get("rule") or verdict.get("text")
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    return _shown(verdict) if isinstance(verdict, str) else ""


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
