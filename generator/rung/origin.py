"""Finds the template that a project came from, and its versions."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from rung.errors import RungError
from rung.git import GitError, broken, git, switch_off_filters_of
from rung.project import Project
from rung.template import find_template, is_git_url

_DESCRIBED = re.compile(r"(?P<tag>.+)-(?P<commits>\d+)-g[0-9a-f]{4,}")


@dataclass(frozen=True)
class Origin:
    src: str
    folder: Path | None
    """The template's folder, when it is on this machine."""

    def named(self, ref: str) -> str:
        """The commit, because a branch or HEAD may point to another one at the next update."""
        return _commit(self.folder, ref) if self.folder else ref

    def same(self, one: str, other: str) -> bool:
        return self.named(one) == self.named(other)

    def is_older(self, one: str, other: str) -> bool:
        if self.folder:
            return _common_base(self.folder, self.named(one), self.named(other)) == self.named(one)
        first, second = version_of(one), version_of(other)
        return first is not None and second is not None and first < second


def origin_of(project: Project, named: str | None) -> Origin:
    src = find_template(named).src if named else project.src
    if is_git_url(src):
        return Origin(src, None)
    folder = Path(src)
    elsewhere = (
        "Pass --template with a checkout of the template or its git URL; the repo records it."
    )
    if not folder.is_absolute():
        raise RungError(
            f"The repo records its template as {src}, which is not an absolute path. {elsewhere}"
        )
    if not folder.is_dir():
        raise RungError(f"The repo's template is no longer at {src}. {elsewhere}")
    switch_off_filters_of(folder)
    try:
        git("rev-parse", "--git-dir", cwd=folder)
    except GitError as error:
        if "config" in str(error):
            raise broken(folder, error) from error
        raise RungError(
            f"The repo's template {src} is not in git ({error}), so its version cannot be "
            f"found. {elsewhere}"
        ) from error
    origin = Origin(src, folder)
    origin.named(project.version)
    return origin


def _commit(folder: Path, ref: str) -> str:
    for candidate in (ref, f"refs/remotes/origin/{ref}"):
        with suppress(GitError):
            return git(
                "rev-parse", "--verify", "--quiet", "--end-of-options",
                f"{candidate}^{{commit}}", cwd=folder,
            )  # fmt: skip
    fetch = "git fetch --unshallow --tags" if _is_shallow(folder) else "git fetch --tags"
    raise RungError(
        f"The template {folder} does not have {ref}. Fetch it there ({fetch}), or pass "
        "--template with a checkout or a git URL that has it."
    )


def _common_base(folder: Path, one: str, other: str) -> str:
    try:
        return git("merge-base", one, other, cwd=folder)
    except GitError as error:
        if _is_shallow(folder):
            raise RungError(
                f"The template {folder} is a shallow clone, so its versions cannot be compared. "
                "Fetch the rest of its history there: git fetch --unshallow"
            ) from error
        raise RungError(
            f"In the template {folder}, {one[:12]} and {other[:12]} have no common history. "
            "Pass --template with the template that the repo came from."
        ) from error


def _is_shallow(folder: Path) -> bool:
    return git("rev-parse", "--is-shallow-repository", cwd=folder) == "true"


def newest(origin: Origin) -> str:
    tags = versions(origin)
    if not tags:
        raise RungError(
            f"The template {origin.src} has no version tags. Name a commit or a branch of it: --ref"
        )
    return tags[-1]


def versions(origin: Origin) -> list[str]:
    """Tags that are versions, oldest first; no pre-releases."""
    where = str(origin.folder) if origin.folder else fetchable(origin.src)
    listed = git("ls-remote", "--tags", "--refs", "--", where, cwd=Path("/")).splitlines()
    tags = [line.split("refs/tags/", 1)[1] for line in listed]
    parsed = [(version, tag) for tag in tags if (version := version_of(tag))]
    return [tag for version, tag in sorted(parsed) if not version.is_prerelease]


def is_newer(tag: str, than: str) -> bool:
    first, second = version_of(tag), version_of(than)
    return first is not None and (second is None or first > second)


def version_of(ref: str) -> Version | None:
    described = _DESCRIBED.fullmatch(ref)
    try:
        version = Version(described["tag"] if described else ref)
    except ValueError:  # Also Python's, for a number of more than 4,300 digits.
        return None
    return Version(f"{version.public}.post{described['commits']}") if described else version


def fetchable(src: str) -> str:
    for short, host in {"gh:": "https://github.com/", "gl:": "https://gitlab.com/"}.items():
        if src.startswith(short):
            return host + src.removeprefix(short).lstrip("/")
    return src.removeprefix("git+")
