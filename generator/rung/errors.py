"""The errors that end a command with one message and an exit code."""

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

# C0 and C1 controls, line separators, bidirectional controls, byte order marks, lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff"
    "\ud800-\udfff]"
)


class RungError(Exception):
    """A command failed. The message says what failed, why, and what to do."""

    exit_code = 1

    def __init__(self, message: str, *lines: str) -> None:
        super().__init__(message)
        self.lines = lines
        """Details, printed below the message."""


class UsageError(RungError):
    """The command line or an answer is invalid."""

    exit_code = 2


def is_printable(text: str) -> bool:
    return not _UNPRINTABLE.search(text)


def shortened(text: str) -> str:
    """Cuts the middle out of each word of 320 characters or more."""
    return re.sub(r"(\S{80})\S{220,}(\S{20})", r"\1…\2", text)


def printable(text: str) -> str:
    """Escapes each character that could control a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def without_password(text: str) -> str:
    """Takes the user and the password out of each URL, also a password that holds @ or a slash."""
    return re.sub(r"(?<=://)(?!git@)(?:[^/\s]*|[^/\s:]*:(?!\d*/)[^\s@]*)@", "", text)


def in_shell(path: Path | str) -> str:
    """As a shell reads it, and no command takes it for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def shown(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def reason_of(error: OSError) -> str:
    """The system's reason, and the file that it names."""
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    return f"{error.strerror or error}" + (f" ({name})" if name else "")
