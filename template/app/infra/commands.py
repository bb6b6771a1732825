# Rung's file: advancing to another stage may change it.
"""`python -m app.…` leaves no traceback when it is interrupted, or when its output goes nowhere."""

import atexit
import errno
import os
import select
import sys
from io import TextIOWrapper
from types import TracebackType


def end_without_traceback() -> None:
    """Called before the command is imported, which takes a second."""
    sys.excepthook = _show
    atexit.register(_flush)
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # it was closed
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 ends no command


def _show(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    """After a KeyboardInterrupt Python ends by the signal, so that a shell's loop ends too."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _say(f"{error}.")
    elif not isinstance(error, KeyboardInterrupt | BrokenPipeError) or _is_elsewhere(error):
        sys.__excepthook__(kind, error, place)


def _is_elsewhere(error: BaseException) -> bool:
    """Whether another pipe than the output is broken: to a server, or to a program that died."""
    if not isinstance(error, BrokenPipeError):
        return False
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return not any(seen & (select.POLLERR | select.POLLHUP) for _, seen in watched.poll(0))


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python writes it again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader needs no more, such as `head`
            _say(f"The output cannot be written: {error.strerror}.")
            os._exit(1)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
