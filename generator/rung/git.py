import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rung.errors import RungError

# A hook or a rebase that calls rung exports these, and every git command would follow them.
_CALLING_REPOSITORY = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_WORK_TREE",
)

# No hook, signature or watching daemon of the person's stands between rung and its one commit.
_UNDISTURBED = {
    "commit.gpgSign": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
}


class GitError(RungError):
    """git itself refused."""


def require() -> None:
    if shutil.which("git") is None:
        raise RungError("git is not installed, or not on PATH. Install it and run this again.")


def leave_calling_repository() -> None:
    for name in _CALLING_REPOSITORY:
        os.environ.pop(name, None)


def let_nothing_interfere() -> None:
    """For every git that this process starts from here on, Copier's among them."""
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    for number, (key, value) in enumerate(_UNDISTURBED.items(), start=first):
        os.environ[f"GIT_CONFIG_KEY_{number}"] = key
        os.environ[f"GIT_CONFIG_VALUE_{number}"] = value
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"  # To look at a repository must not write its index.
    os.environ["GIT_CONFIG_COUNT"] = str(first + len(_UNDISTURBED))


def git(
    *arguments: str,
    cwd: Path,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    return _spoken(_output(arguments, cwd, stdin, environment)).strip()


def git_list(
    *arguments: str,
    cwd: Path,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """What a git command lists with -z."""
    listed = _spoken(_output(arguments, cwd, stdin, environment))
    return [entry for entry in listed.split("\0") if entry]


def git_bytes(*arguments: str, cwd: Path) -> bytes:
    return _output(arguments, cwd, None, None)


def _spoken(output: bytes) -> str:
    return output.decode("utf-8", "surrogateescape")


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
        env={**os.environ, **environment} if environment else None,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        command = next(word for word in arguments if not word.startswith("-"))
        raise GitError(f"git {command} failed: {last_line(_spoken(done.stderr))}")
    return done.stdout


def last_line(output: str) -> str:
    """Where programs say what really went wrong."""
    return next(
        (line.strip() for line in reversed(output.splitlines()) if line.strip()), "no reason given"
    )


def require_identity(repository: Path, *, otherwise: str) -> None:
    try:
        git("var", "GIT_AUTHOR_IDENT", cwd=repository)
        git("var", "GIT_COMMITTER_IDENT", cwd=repository)
    except GitError as error:
        raise RungError(
            "git does not know who you are, so it cannot commit. Run\n"
            '    git config --global user.name "Your Name"\n'
            "    git config --global user.email you@example.com\n"
            f"and this again, or {otherwise}."
        ) from error
