"""Runs git without variables and settings that would redirect it or run programs."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rung.errors import RungError, in_shell

# The committer, the settings and the access to a remote. Every other GIT_* variable is dropped:
# it would name a repository, a program or a mode. Hooks and rebases export many.
_KEPT = {
    *(f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM"),
    *("GIT_ASKPASS", "GIT_PROXY_COMMAND", "GIT_TERMINAL_PROMPT"),
    *("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT"),
    *("GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_CERT", "GIT_SSL_KEY"),
}

# Settings from GIT_CONFIG_KEY_n that are kept, because CI passes credentials in them.
_KEPT_SETTINGS = ("credential.", "http.", "safe.", "url.", "user.")

# The person's attributes, line endings and folder for new repositories. They must not change what
# a template's commit holds.
_AS_STORED = {
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.eol": "lf",
    "init.templateDir": "",
}

# No hook, signature or program of a repository's own settings may run. core.ignoreStat would hide
# each file that a step commits from git status.
_FENCE = {
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.ignoreStat": "false",
    "diff.orderFile": os.devnull,
    "init.defaultBranch": "main",
    "i18n.logOutputEncoding": "UTF-8",
    "protocol.ext.allow": "never",
}


class GitError(RungError):
    """A git command failed."""


def fence() -> None:
    """Applies to each git that this process starts from now on, also through Copier and uv."""
    if shutil.which("git") is None:
        raise RungError("git is not installed, or not on PATH. Install it and run this again.")
    without_settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    version = git("version", cwd=Path("/"), environment=without_settings)
    numbers = re.search(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < (2, 31):  # It ignores GIT_CONFIG_COUNT.
        raise RungError(
            f"{version} is too old: it would run programs that a repository's settings name. "
            "Rung needs 2.31 or later."
        )
    settings = _kept_settings()
    for name in [name for name in os.environ if name.startswith("GIT_") and name not in _KEPT]:
        del os.environ[name]
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"  # Reading a repository must not write its index.
    _set([*settings, *_FENCE.items()])


def _kept_settings() -> list[tuple[str, str]]:
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    given = [
        (os.environ.get(f"GIT_CONFIG_KEY_{n}", ""), os.environ.get(f"GIT_CONFIG_VALUE_{n}", ""))
        for n in range(int(count) if re.fullmatch(r"\d{1,3}", count) else 0)
    ]
    return [(key, value) for key, value in given if key.lower().startswith(_KEPT_SETTINGS)]


def _set(settings: Sequence[tuple[str, str]]) -> None:
    os.environ.update(_variables(settings))


def _variables(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The variables that add these settings to those of the environment."""
    first = int(os.environ.get("GIT_CONFIG_COUNT", "0"))
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (key, value) in enumerate(settings, start=first):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def as_stored() -> dict[str, str]:
    """The variables for a git that checks out a template byte for byte."""
    return {**_variables([*_AS_STORED.items()]), "GIT_ATTR_NOSYSTEM": "1"}


def switch_off_filters_of(repository: Path) -> None:
    """Only the filters that this repository's own settings define: git would run them."""
    listed: list[str] = []
    with suppress(GitError):  # git exits 1 when there is none.
        listed = git_list(
            "config", "--null", "--show-scope", "--get-regexp", r"^filter\.", cwd=repository
        )
    own: dict[str, str] = {}
    persons: dict[str, str] = {}
    for scope, setting in zip(listed[::2], listed[1::2], strict=True):
        key, _, value = setting.partition("\n")
        (own if scope in {"local", "worktree"} else persons)[key] = value
    drivers = {key.rpartition(".")[0] for key in own if persons.get(key) != own[key]}
    off = {"clean": "", "smudge": "", "process": "", "required": "false"}
    _set([(f"{driver}.{key}", value) for driver in sorted(drivers) for key, value in off.items()])


def git(
    *arguments: str,
    cwd: Path,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """A path may begin or end with a space, so only the last line's end is taken off."""
    return decoded(_output(arguments, cwd, stdin, environment)).removesuffix("\n")


def git_list(
    *arguments: str,
    cwd: Path,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The entries that a git command lists with -z."""
    listed = decoded(_output(arguments, cwd, stdin, environment))
    return [entry for entry in listed.split("\0") if entry]


def git_bytes(*arguments: str, cwd: Path) -> bytes:
    return _output(arguments, cwd, None, None)


def decoded(output: bytes) -> str:
    return output.decode("utf-8", "surrogateescape")


def null_terminated(entries: Sequence[str]) -> bytes:
    return os.fsencode("".join(f"{entry}\0" for entry in entries))


def quoted(folder: Path) -> str:
    """Quotes a path for a list of object directories, where a path may hold any character."""
    escaped = str(folder).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _output(
    arguments: Sequence[str],
    cwd: Path,
    stdin: bytes | None,
    environment: Mapping[str, str] | None,
) -> bytes:
    done = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        input=stdin or b"",
        env={**os.environ, "LC_ALL": "C", **(environment or {})},
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        command = next(word for word in arguments if not word.startswith("-"))
        raise GitError(f"git {command} failed: {reason(decoded(done.stderr), done.returncode)}")
    return done.stdout


def reason(errors: str, code: int) -> str:
    """The cause of a failure, from git's exit code and what it wrote to stderr."""
    if code < 0 and not re.search(r"(?m)^(fatal|error): ", errors):
        return f"it was killed ({signal.strsignal(-code)})"
    # The other side's own words come before this line, and general advice follows it.
    errors = errors.partition("fatal: Could not read from remote repository")[0].strip() or errors
    if foreign := re.search(r"dubious ownership in repository at '(.+)'", errors):
        return (
            f"{foreign[1]} belongs to another user. If you trust it, run "
            f"git config --global --add safe.directory {in_shell(foreign[1])}"
        )
    if lock := re.search(r"'([^'\n]+\.lock)': File exists", errors):
        return (
            f"{lock[1]} exists, because another git command is running or was killed. If none is "
            "running, remove this file"
        )
    # The shell says so when git starts a filter, such as that of git-lfs.
    if missing := re.search(r"(?m): (?:line )?\d+: ([^ :]+): (?:command )?not found$", errors):
        return f"it needs {missing[1]}, which is not installed, or not on PATH"
    if re.search("unknown repository extension|Expected git repo version", errors):
        words = " ".join(errors.split()).removeprefix("fatal: ")
        return f"{words}. A newer git made this repository, so update git"
    # git names the cause first. The failed action or advice follows.
    said = [line for line in errors.splitlines() if line.startswith(("fatal: ", "error: "))]
    if not said:
        return last_line(re.sub(r"(?m)^hint:.*$", "", errors))
    return f"{said[0]} {last_line(errors)}" if said[0].endswith(":") else said[0].rstrip(".")


def last_line(output: str) -> str:
    """Most programs name the cause of a failure there."""
    return next(
        (line.strip() for line in reversed(output.splitlines()) if line.strip()), "no reason given"
    )


def broken(folder: Path, error: GitError) -> RungError:
    """For a folder in which git itself does not work, for example because of its settings."""
    return RungError(f"Make git status work in {folder} first: {error}")


def require_identity(repository: Path, *, otherwise: str) -> None:
    try:
        git("var", "GIT_AUTHOR_IDENT", cwd=repository)
        git("var", "GIT_COMMITTER_IDENT", cwd=repository)
    except GitError as error:
        if "invalid date format" in str(error):
            raise RungError(f"{error}. Correct GIT_AUTHOR_DATE or GIT_COMMITTER_DATE.") from error
        names = [n for n in sorted(_KEPT) if n.endswith(("_NAME", "_EMAIL")) and n in os.environ]
        if blank := [name for name in names if not os.environ[name].strip()]:
            raise RungError(f"{error}. Set or unset {' and '.join(blank)}.") from error
        raise RungError(
            "git does not know who you are, so it cannot commit. Run "
            'git config --global user.name "Your Name" and '
            f"git config --global user.email you@example.com, or {otherwise}."
        ) from error
