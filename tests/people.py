"""A person at a machine, as tests of the CLI see one: a folder, a terminal, what lies there."""

import os
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import forked
import pytest

RUNG = Path(sys.executable).with_name("rung")
COPIER = Path(sys.executable).with_name("copier")

# Dead processes and full disks fail at once. Two minutes mean a hang, even on a busy machine.
PATIENCE = 120


def git(*arguments: str, cwd: Path) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


@dataclass(frozen=True)
class Machine:
    quick_uv: Path
    environment: dict[str, str]

    @classmethod
    def made_in(cls, folder: Path) -> "Machine":
        home = folder / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Ada Lovelace\n\temail = ada@example.com\n"
        )
        uv = folder / "uv"
        uv.write_text('#!/bin/sh\n[ "$1" = lock ] && echo "# locked" > uv.lock\n')
        uv.chmod(0o755)
        environment = {
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "COPIER_CACHE_DIR": str(folder / "copier-cache"),
            "COPIER_SETTINGS_PATH": str(home / "copier.yml"),
        }
        (home / "copier.yml").write_text("{}\n")
        return cls(uv, environment)


@dataclass
class Person:
    desk: Path
    temporary: Path
    environment: dict[str, str] = field(repr=False)
    patience: float = PATIENCE

    def types(self, *words: str | Path, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`rung` with these words, with no terminal."""
        return self.runs(RUNG, *words, at=at)

    def runs(self, *words: str | Path, at: Path | None = None) -> subprocess.CompletedProcess[str]:
        typed = [str(word) for word in words]
        if forked.can_run(typed[0], self.environment):
            return forked.run(typed, at or self.desk, self.environment, self.patience)
        return subprocess.run(
            typed,
            cwd=at or self.desk,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=self.patience,
            check=False,
        )

    def starts(self, *words: str | Path) -> subprocess.Popen[str]:
        """`rung` in its own process group, to which a terminal's Ctrl-C would go."""
        return subprocess.Popen(
            ["env", "--default-signal=INT", str(RUNG), *(str(word) for word in words)],
            cwd=self.desk,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @contextmanager
    def at_a_terminal(self, *words: str | Path) -> Iterator["Terminal"]:
        keyboard, screen = os.openpty()
        termios.tcsetwinsize(screen, (24, 80))
        process = subprocess.Popen(
            [str(RUNG), *(str(word) for word in words)],
            cwd=self.desk,
            env={**self.environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            stdin=screen,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
        os.close(screen)
        try:
            yield Terminal(process, keyboard)
        finally:
            process.kill()
            process.wait()
            os.close(keyboard)

    def leftovers(self) -> list[str]:
        """The names of all files on the desk and among the temporary files."""
        return sorted(path.name for top in (self.desk, self.temporary) for path in top.iterdir())

    def everything(self) -> dict[str, tuple[int, bytes]]:
        """All files on the desk and among the temporary files, hidden files included."""
        found = [path for top in (self.desk, self.temporary) for path in sorted(top.rglob("*"))]
        return {str(path): (path.lstat().st_mode, content(path)) for path in found}

    @contextmanager
    def leaving_no_trace(self) -> Iterator[None]:
        before = self.everything()
        yield
        assert self.everything() == before


def content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


@dataclass
class Terminal:
    process: subprocess.Popen[bytes]
    keyboard: int
    shown: str = ""

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), f"{text!r} never came:\n{self.shown}"

    def wait_until_it_listens(self) -> None:
        """Waits for the read: a signal before it is noticed only at the next key."""
        end = time.monotonic() + PATIENCE
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text(encoding="utf-8").rsplit(") ", 1)[1][0] != "S":
            assert time.monotonic() < end, f"it does not wait for a key:\n{self.shown}"
            time.sleep(0.01)

    @property
    def text(self) -> str:
        """The screen's text, without the sequences that place and colour it."""
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])", "", self.shown)

    def press(self, keys: str) -> None:
        os.write(self.keyboard, keys.encode(errors="surrogateescape"))

    def wait_for_the_end(self) -> int:
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        if not select.select([self.keyboard], [], [], PATIENCE)[0]:
            return False
        try:
            more = os.read(self.keyboard, 4096)
        except OSError:  # Linux's way to say that the other side has closed.
            return False
        self.shown += more.decode(errors="replace")
        return bool(more)


def wait_until_there(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)


def slow_down(person: Person, program: str, step: str, reached: Path) -> None:
    """The program reports that it has reached the step, and then waits for a while."""
    slow = person.temporary.parent / "slow" / program
    slow.parent.mkdir()
    real = shutil.which("git") if program == "git" else person.environment["UV"]
    slow.write_text(
        f'#!/bin/sh\nfor word; do [ "$word" = {step} ] && touch {reached} && sleep 2; done\n'
        f'exec {real} "$@"\n'
    )
    slow.chmod(0o755)
    person.environment["PATH"] = f"{slow.parent}{os.pathsep}{person.environment['PATH']}"
    if program == "uv":
        person.environment["UV"] = str(slow)


def in_locale(locale: str, folder: Path) -> dict[str, str]:
    """The variables of a locale such as ja_JP.EUC-JP, which is made in this folder."""
    language, encoding = locale.split(".")
    folder.mkdir(exist_ok=True)
    command = ["localedef", "-i", language, "-f", encoding, str(folder / locale)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode > 1:
        # .ci/run installs the sources of locales.
        assert "CI" not in os.environ, made.stderr
        pytest.skip("localedef cannot make a locale here")
    return {"LOCPATH": str(folder), "LC_ALL": locale}


def spell_otherwise(person: Person, folder: Path) -> Path:
    """git then names the folder by this link, as it corrects a typed capital letter on macOS."""
    link = person.temporary.parent / "spelled-otherwise"
    link.symlink_to(folder)
    program = person.temporary.parent / "macos" / "git"
    program.parent.mkdir()
    real = shutil.which("git")
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--show-toplevel*) ;; *) exec ' + f'{real} "$@" ;; esac\n'
        f'top=$({real} "$@") || exit\n[ "$top" = {folder} ] && top={link}\necho "$top"\n'
    )
    program.chmod(0o755)
    person.environment["PATH"] = f"{program.parent}{os.pathsep}{person.environment['PATH']}"
    return link


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors
