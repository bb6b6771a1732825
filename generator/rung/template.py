"""Finds the template: a checkout, a git URL, or where rung was installed from."""

import json
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rung import __version__
from rung.errors import RungError, UsageError, is_printable, shown
from rung.git import GitError, broken, git, git_list, switch_off_filters_of

_NAME_ONE = "Pass --template, or set RUNG_TEMPLATE, to a checkout of the template or its git URL."

_GIT_URL = re.compile(r"gh:|gl:|git\+|[a-z][a-z0-9+.-]*://|[^/\s]+@[^/\s]+:")

# The git URLs that Copier recognizes. Each other one needs "git+" in front.
_KNOWN_TO_COPIER = re.compile(r"gh:|gl:|git\+|git@|git://|https://git(hub|lab)\.com/|.*\.git$")

# In place of a user, as in https://ghp_…@github.com. Longer than people's names.
_SHORTEST_TOKEN = 20


@dataclass(frozen=True)
class Template:
    """The location of a template, as a project records it for later updates."""

    src: str
    ref: str | None
    """A commit; None for the newest version tag, as Copier chooses it."""


def find_template(named: str | None) -> Template:
    source = named or os.environ.get("RUNG_TEMPLATE")
    if not source:
        return _installed_from()
    if is_git_url(source):
        return _remote(source, ref=None)
    if not is_printable(source):
        raise UsageError(
            f"The template {source} holds control characters or is not UTF-8. {_NAME_ONE}"
        )
    return _checkout(Path(os.path.expanduser(source)))  # noqa: PTH111 - ~nobody must not raise


def _installed_from() -> Template:
    origin = _origin()
    if origin.get("subdirectory"):
        raise RungError(f"rung was installed from a subdirectory of {origin['url']}. {_NAME_ONE}")
    if origin.get("vcs_info", {}).get("vcs") == "git":
        return _remote(origin["url"], ref=origin["vcs_info"]["commit_id"])
    if "dir_info" in origin:
        return _checkout(Path.from_uri(origin["url"]))
    if url := _released_at():
        return _remote(url, ref=f"v{__version__}")
    raise RungError(f"rung was installed as a package, which holds no template. {_NAME_ONE}")


def _released_at() -> str | None:
    """The URL "Template" of the package: [project.urls] in pyproject.toml."""
    try:
        urls = distribution("rung").metadata.get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    named = (url.partition(", ") for url in urls)
    return next((url for name, _, url in named if name == "Template"), None)


def _origin() -> dict[str, Any]:
    """The installer's record (PEP 610); empty when rung came from an index."""
    try:
        recorded = distribution("rung").read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    return json.loads(recorded) if recorded else {}


def is_git_url(source: str) -> bool:
    return bool(_GIT_URL.match(source))


def _remote(url: str, ref: str | None) -> Template:
    if url.removeprefix("git+").startswith("-") or not is_printable(url):
        raise UsageError(f"{url} is not a git URL. {_NAME_ONE}")
    if _password_in(url):
        raise UsageError(
            "The template's URL holds a password or token, and the repo would record it in its "
            "first commit. Remove it, and let git's credential helper supply it."
        )
    return Template(url if _KNOWN_TO_COPIER.match(url) else f"git+{url}", ref)


def _password_in(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.password) or len(parts.username or "") >= _SHORTEST_TOKEN
    except ValueError as error:
        raise UsageError(f"{url} is not a git URL: {error}. {_NAME_ONE}") from error


def _checkout(folder: Path) -> Template:
    """Uses the last commit, because a later update must check out the recorded version."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"There is no template at {folder}: no such folder. {_NAME_ONE}")
    switch_off_filters_of(folder)
    try:
        top = git("rev-parse", "--show-toplevel", cwd=folder)
    except GitError as error:
        if "config" in str(error):
            raise broken(folder, error) from error
        raise UsageError(
            f"{folder} is not a git work tree ({error}), so no update could find this template "
            "again. Commit it to git first, or name a git URL."
        ) from error
    if not folder.samefile(top):
        raise UsageError(f"{folder} is a folder of the git repository {top}. Name that one.")
    # On macOS git corrects a typed capital letter. Copier compares its spelling with this one.
    folder = Path(top)
    if not (folder / "copier.yml").is_file():
        raise UsageError(f"{folder} is not a template: it has no copier.yml. {_NAME_ONE}")
    _refuse_uncommitted(folder)
    try:
        return Template(str(folder), git("rev-parse", "--verify", "HEAD", cwd=folder))
    except GitError as error:
        raise UsageError(f"The template {folder} has no commit yet. Commit it first.") from error


def _refuse_uncommitted(folder: Path) -> None:
    status = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal"]
    if changes := git_list(*status, cwd=folder):
        raise RungError(
            f"The template {folder} has changes that are not committed "
            f"({shown(change[3:] for change in changes)}), so no update could find this version "
            "again. Commit or stash them."
        )
