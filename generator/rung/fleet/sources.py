"""Finds the repos of a SOURCE: a folder, a list or an organisation. Follows no symbolic link."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rung.errors import UsageError, is_printable
from rung.fleet.hosts import repos_of_organisation
from rung.reading import UnreadableError, read_bytes
from rung.template import is_git_url

_MOST_LEVELS = 4
_ORGANISATION = re.compile(r"(github|gitlab):([\w.-]+(?:/[\w.-]+)*)")


@dataclass(frozen=True)
class Found:
    name: str
    place: str
    """A folder, or the URL to clone from."""
    problem: str = ""
    files: dict[str, bytes] | None = None
    """The files that the host's API returned; None when rung must read the repo itself."""
    host: str = ""
    """github or gitlab; empty where rung cannot open a pull request."""
    is_repo: bool = True
    """False for what else a folder of repos holds."""

    @property
    def is_remote(self) -> bool:
        return is_git_url(self.place)


def find(sources: Iterable[str], wanted: tuple[str, ...]) -> list[Found]:
    """Each repo once, sorted by name. wanted: the files to get from a host's API."""
    every = [(_repo_of(one), one) for source in sources for one in _find(source, wanted)]
    every.sort(key=lambda pair: pair[0] != pair[1].place)  # A repo comes before its work trees.
    found: dict[str, Found] = {}
    for repo, one in every:
        found.setdefault(repo, one)
    return sorted(found.values(), key=lambda one: (one.name, one.place))


def _repo_of(found: Found) -> str:
    """The place; for a work tree of `git worktree add`, the place of its repo."""
    try:
        text = read_bytes(Path(found.place, ".git")).decode()
    except (UnreadableError, UnicodeDecodeError):  # Most often .git is a folder.
        return found.place
    names = re.fullmatch(r"gitdir: (.+?)(?:/\.git)?/worktrees/[^/]+\s*", text)
    return os.path.normpath(Path(found.place, names[1])) if names else found.place


def _find(source: str, wanted: tuple[str, ...]) -> Iterator[Found]:
    if not is_printable(source):
        raise UsageError(f"The source {source} holds control characters or is not UTF-8.")
    path = Path(source)
    if organisation := _ORGANISATION.fullmatch(source):
        host, name = organisation.groups()
        for repo in repos_of_organisation(host, name, wanted):
            yield Found(repo.name, repo.url, repo.problem, repo.files, host)
    elif is_git_url(source):
        yield named(source)
    elif path.is_dir():
        yield from _in_folder(path.resolve())
    elif path.is_file():
        yield from _in_list(path)
    else:
        raise UsageError(
            f"There is no source {source}. Name a folder of repos, a file with a path or a git "
            "URL on each line, github:ORGANISATION or gitlab:GROUP."
        )


def _in_folder(folder: Path) -> Iterator[Found]:
    if git_dir_of(folder):
        yield Found(folder.name, str(folder))
        return
    for entry in _entries(folder):
        place = Path(entry.path)
        if entry.name.startswith(".") or entry.is_file(follow_symlinks=False):
            continue
        if entry.is_symlink():
            yield Found(entry.name, entry.path, "it is a symbolic link", is_repo=False)
        elif not entry.is_dir(follow_symlinks=False):
            yield Found(entry.name, entry.path, "it is not a folder", is_repo=False)
        else:
            below = list(_below(place, folder, _MOST_LEVELS))
            yield from below or [_no_repo(place)]


def _below(folder: Path, top: Path, levels: int) -> Iterator[Found]:
    if git_dir_of(folder):
        yield Found(str(folder.relative_to(top)), str(folder))
        return
    for entry in _entries(folder) if levels > 1 else ():
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), top, levels - 1)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _no_repo(folder: Path) -> Found:
    try:
        os.scandir(folder).close()
    except OSError as error:
        return Found(folder.name, str(folder), f"it cannot be read: {error.strerror}")
    return Found(folder.name, str(folder), "it is not a git repository", is_repo=False)


def git_dir_of(folder: Path) -> Path | None:
    """The git directory of a work tree or a bare repo. It may be damaged: git checks that later."""
    if os.path.lexists(folder / ".git"):
        return folder / ".git"
    try:
        parts = [(folder / name).lstat().st_mode for name in ("objects", "refs")]
    except OSError:
        return None
    return folder if all(map(stat.S_ISDIR, parts)) else None


def _in_list(file: Path) -> Iterator[Found]:
    try:
        lines = read_bytes(file).decode("utf-8-sig").splitlines()
    except (UnreadableError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise UsageError(f"The list {file} cannot be read: {reason}.") from error
    for line in (re.split(r"(?:^|\s)#", line)[0].strip() for line in lines):
        if not line:
            continue
        if not is_printable(line) or line.startswith("-"):
            raise UsageError(
                f"The list {file} holds {line[:60]!r}, which is neither a path nor a git URL. "
                "Correct this line."
            )
        if is_git_url(line):
            yield named(line)
            continue
        folder = (file.parent / os.path.expanduser(line)).resolve()  # noqa: PTH111 - as in find_template
        problem = "" if git_dir_of(folder) else "it is not a git repository"
        yield Found(folder.name, str(folder), problem)


def named(url: str) -> Found:
    """The name has no password, because it is printed."""
    plain = re.sub(r"^(?:git\+)?[a-z0-9+.-]+://(?:[^/@]*@)?|^[^/\s]+@", "", url)
    host, _, path = re.sub(r"(\.git)?/*$", "", plain.replace(":", "/")).partition("/")
    known = {"github.com": "github", "gitlab.com": "gitlab"}.get(host, "")
    return Found(path if known else "/".join(path.split("/")[-2:]), url, host=known)
