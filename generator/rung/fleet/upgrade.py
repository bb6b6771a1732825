"""Upgrades a fleet: one branch and one pull request for each repo, also after a restart."""

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rung.answers import Answer
from rung.errors import RungError, UsageError, without_password
from rung.fleet.hosts import GitHub, GitLab, HostError
from rung.fleet.sources import Found
from rung.fleet.survey import Line, Row
from rung.git import decoded, last_line
from rung.git import reason as why
from rung.origin import is_newer
from rung.reading import UnreadableError, read_bytes

_SECONDS = 600

_MOST_STATE_BYTES = 64 << 20

_TEXT = """\
This brings the repo to version {version} of its template {template}, at the same stage.

The changes were merged with yours, and `uv.lock` was locked again. Read the template's CHANGELOG \
for steps that you must do yourself, and merge when the checks are green.
"""


@dataclass(frozen=True)
class Outcome:
    repo: str
    kind: str
    """merges, conflict, refused, newest, skipped, pushed, opened or done (in an earlier run)."""
    words: str = ""

    @property
    def failed(self) -> bool:
        return self.kind in {"conflict", "refused"}


class State:
    """A log of finished steps, one JSON line each. The next run continues after the last line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._steps: dict[tuple[str, str], str] = {}
        try:
            lines = read_bytes(file, most=_MOST_STATE_BYTES).splitlines() if file.exists() else []
            for line in lines:
                step = json.loads(line)
                self._steps[step["place"], step["branch"]] = str(step["step"])
        except (UnreadableError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = error if isinstance(error, UnreadableError) else "it was not written by rung"
            raise UsageError(f"The state file {file} cannot be used: {reason}.") from error

    def step_of(self, place: str, branch: str) -> str:
        return self._steps.get((place, branch), "")

    def record(self, place: str, branch: str, step: str, url: str = "") -> None:
        with self._lock, self._file.open("a", encoding="utf-8") as file:
            entry = {"place": place, "branch": branch, "step": step, "url": url}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._steps[place, branch] = step


@contextmanager
def state_in(file: Path) -> Iterator[State]:
    """Allows one run at a time, because two would open the same pull request."""
    try:
        with file.open("a", encoding="utf-8") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield State(file)
    except BlockingIOError as error:
        raise RungError(f"Another rung uses {file}. Wait until it has finished.") from error


class Pace:
    """Limits the pull requests a minute, because each one starts a CI run."""

    def __init__(self, per_minute: int) -> None:
        self._seconds = 60 / per_minute
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        with self._lock:
            time.sleep(max(0.0, self._next - time.monotonic()))
            self._next = time.monotonic() + self._seconds


@contextmanager
def all_upgraded(
    found: Sequence[tuple[Found, Row]], one: Callable[[Found, Row], Outcome]
) -> Iterator[Iterator[Outcome]]:
    """Upgrades several repos at once; yields outcomes in order. On Ctrl-C, running ones finish."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield _results([pool.submit(one, *pair) for pair in found])
    except KeyboardInterrupt as interrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print("rung: Stopping after the repos in progress.", file=sys.stderr)
        pool.shutdown()
        raise RungError("Stopped. Run the same command again to continue.") from interrupt
    finally:
        pool.shutdown(cancel_futures=True)


def _results(running: Sequence[Future[Outcome]]) -> Iterator[Outcome]:
    for future in running:
        # Python sees a Ctrl-C that arrives just as this wait begins only when the wait ends.
        while not future.done():
            wait([future], timeout=1)
        yield future.result()


@dataclass(frozen=True)
class Upgrade:
    line: Line
    version: str
    state: State | None
    """None for a dry run."""
    pace: Pace
    given: Mapping[str, Answer]

    @property
    def branch(self) -> str:
        return f"rung/upgrade-{self.version}"

    def __call__(self, found: Found, row: Row) -> Outcome:
        if row.is_unread and found.is_repo:
            return Outcome(row.repo, "refused", row.problem)
        if row.problem:
            return Outcome(row.repo, "skipped", row.problem)
        if not is_newer(self.version, row.version):
            return Outcome(row.repo, "newest", row.version)
        try:
            return self._upgrade(found, row)
        except (_GitFailedError, HostError, OSError) as error:
            return Outcome(row.repo, "refused", without_password(str(error)))

    def _upgrade(self, found: Found, row: Row) -> Outcome:
        step = self.state.step_of(row.place, self.branch) if self.state else ""
        if step == "done":
            return Outcome(row.repo, "done")
        with tempfile.TemporaryDirectory(prefix="rung-fleet-") as folder:
            clone = Path(folder) / "repo"
            url = found.place.removeprefix("git+")
            url = url if found.is_remote else Path(url).as_uri()
            how = ["--quiet", "--depth=1", "--template=", "--origin=origin"]
            _git("clone", *how, "--", url, str(clone), cwd=folder)
            base = _git("symbolic-ref", "--short", "HEAD", cwd=clone)
            there = _git("ls-remote", "origin", f"refs/heads/{self.branch}", cwd=clone)
            if there and not step:
                return Outcome(row.repo, "skipped", f"it has a branch {self.branch} already")
            if not there:
                if refusal := self._take(clone, row):
                    return refusal
                if self.state is None:
                    return Outcome(row.repo, "merges", f"{row.version} to {self.version}")
                self.pace.wait()
                self.state.record(row.place, self.branch, "pushing")
                _git("push", "--quiet", "origin", f"HEAD:refs/heads/{self.branch}", cwd=clone)
                self.state.record(row.place, self.branch, "pushed")
            return self._open(found, row, base)

    def _take(self, clone: Path, row: Row) -> Outcome | None:
        how = json.dumps([str(clone), self.version, self.state is None, self.given])
        command = [sys.executable, "-P", "-X", "utf8", "-m", "rung.fleet.one", how]
        done = _run(command, cwd=clone.parent)
        try:
            kind, words = json.loads(done.stdout)
        except ValueError:  # It was killed, or it has a bug.
            kind, words = "refused", last_line(decoded(done.stderr))
        words = words.replace(f"{clone}/", "").replace(str(clone), row.repo)
        return None if kind == "merges" else Outcome(row.repo, kind, without_password(words))

    def _open(self, found: Found, row: Row, base: str) -> Outcome:
        assert self.state  # noqa: S101 - a dry run returns before it pushes
        if found.host:
            title = f"Upgrade the template to {self.version}"
            text = _TEXT.format(version=self.version, template=row.template)
            api = GitHub if found.host == "github" else GitLab
            try:
                url = api.from_environment().open(found.name, self.branch, base, title, text)
            except HostError as error:
                if error.code not in {409, 422} or "already exists" not in error.body:
                    raise
                url = "its pull request was open already"
            self.state.record(row.place, self.branch, "done", url)
            return Outcome(row.repo, "opened", url)
        self.state.record(row.place, self.branch, "done")
        return Outcome(row.repo, "pushed", self.branch)


class _GitFailedError(Exception):
    """The message is git's reason."""


def _git(*arguments: str, cwd: Path | str) -> str:
    done = _run(["git", *arguments], cwd=Path(cwd))
    if done.returncode != 0:
        errors = decoded(done.stderr)
        # A host says first why it refuses a push.
        said = re.search(r"^(remote: .*\w.*| ! \[.*)", errors, re.MULTILINE)
        reason = said[0].strip() if said else why(errors, done.returncode)
        raise _GitFailedError(f"git {arguments[0]}: {reason}"[:300])
    return decoded(done.stdout).strip().split("\n")[0]


def _run(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    variables = {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            start_new_session=True,  # A Ctrl-C must not interrupt a push.
        )
    except subprocess.TimeoutExpired as error:
        raise _GitFailedError(f"{Path(command[0]).name} took longer than {_SECONDS} s") from error
