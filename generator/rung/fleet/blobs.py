"""Reads a few files and the tree of one commit of an untrusted repo."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rung.fleet.sources import Found, git_dir_of
from rung.git import decoded, last_line
from rung.git import reason as why

PATIENCE = 10
"""Seconds for one local repo: a FIFO in its .git would make git wait forever."""

_CLONING_SECONDS = 120
# A real answers file has 1 KiB. PyYAML takes 10 s for 1 MiB, and one repo must not delay the fleet.
MOST_BYTES = 64 << 10

_MOST_TREE_BYTES = 8 << 20

# An untrusted partial clone would fetch missing objects with a command from its own settings.
_LOCAL_ONLY = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "LC_ALL": "C"}


class RepoError(Exception):
    """The repo cannot be read; the message is the reason."""


@contextmanager
def git_dir(repo: Found) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """Its git directory, and the variables to read it with."""
    if not repo.is_remote:
        found = git_dir_of(Path(repo.place))
        if found is None:
            raise RepoError("it is not a git repository")
        yield found, _LOCAL_ONLY
        return
    with tempfile.TemporaryDirectory(prefix="rung-fleet-") as folder:
        bare = Path(folder) / "repo.git"
        _run(
            "clone", "--quiet", "--bare", "--depth=1", "--filter=blob:none", "--no-tags",
            "--template=", "--", repo.place.removeprefix("git+"), str(bare),
        )  # fmt: skip
        yield bare, {"LC_ALL": "C"}


def _run(*arguments: str) -> None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CLONING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RepoError(f"git took longer than {_CLONING_SECONDS} s") from error
    if done.returncode != 0:
        said = decoded(done.stderr)
        # General advice follows this line, and the reason comes before it.
        reason = said.partition("fatal: Could not read from remote repository")[0]
        raise RepoError(last_line(reason.strip() or said)[:200].rstrip("."))


def files_at_head(
    git_dir: Path, variables: Mapping[str, str], wanted: tuple[str, ...]
) -> dict[str, bytes]:
    """The wanted files that exist. The first one must exist."""
    with _git(git_dir, variables, "cat-file", "--batch") as process:
        found: dict[str, bytes] = {}
        for path in wanted:
            kind, size = _asked(process, f"HEAD:{path}")
            if kind == "missing":
                if path != wanted[0]:
                    continue
                if _asked(process, "HEAD")[0] == "missing":
                    raise RepoError("it has no commit at HEAD")
                raise RepoError(f"it has no {path} at its top")
            if kind != "blob":
                raise RepoError(f"{path} is not a file")
            if size > MOST_BYTES:
                raise RepoError(f"{path} is larger than {MOST_BYTES >> 10} KiB")
            found[path] = _contents(process, size)
        return found


def tree_at_head(
    git_dir: Path, variables: Mapping[str, str], under: tuple[str, ...]
) -> dict[str, str]:
    """The git object id of each file under these folders, by path."""
    with _git(
        git_dir, variables, "ls-tree", "-r", "-z", "--full-tree", "HEAD", "--", *under
    ) as process:
        listed = _out(process).read(_MOST_TREE_BYTES + 1)
        if len(listed) > _MOST_TREE_BYTES:
            raise RepoError("it has too many files")
    entries = (line.split("\t", 1) for line in decoded(listed).split("\0") if line)
    return {path: meta.split()[2] for meta, path in entries}


@contextmanager
def _git(
    git_dir: Path, variables: Mapping[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Kills git when it takes too long, and turns its failure into a RepoError."""
    process = subprocess.Popen(
        ["git", f"--git-dir={git_dir}", *arguments],
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    late = threading.Event()
    seconds = PATIENCE if variables is _LOCAL_ONLY else _CLONING_SECONDS

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        with process:
            try:
                yield process
            except (OSError, ValueError) as error:
                raise RepoError(_reason(process, late, seconds)) from error
            except BaseException:
                process.kill()
                raise
            _in(process).close()
            if process.wait() != 0:
                raise RepoError(_reason(process, late, seconds))
    finally:
        timer.cancel()


def _reason(process: subprocess.Popen[bytes], late: threading.Event, seconds: int) -> str:
    if late.is_set():
        return f"git took longer than {seconds} s"
    process.kill()
    errors = process.stderr.read(10_000) if process.stderr else b""
    return f"git cannot read it: {why(decoded(errors), 1)[:200]}"


def _asked(process: subprocess.Popen[bytes], name: str) -> tuple[str, int]:
    """The kind and the size. git then writes the content."""
    os.write(_in(process).fileno(), f"{name}\n".encode())
    answer = _out(process).readline(1000)
    if not answer.endswith(b"\n"):
        raise ValueError
    words = answer.rsplit(maxsplit=2)
    if words[-1] == b"missing":
        return "missing", 0
    return words[-2].decode(), int(words[-1])


def _contents(process: subprocess.Popen[bytes], size: int) -> bytes:
    content = _out(process).read(size)
    if len(content) != size or _out(process).read(1) != b"\n":
        raise ValueError
    return content


def _in(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin  # noqa: S101 - a pipe, by Popen's arguments
    return process.stdin


def _out(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout  # noqa: S101 - a pipe, by Popen's arguments
    return process.stdout
