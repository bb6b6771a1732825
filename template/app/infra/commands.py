# Rung's file: advancing to another stage may change it.
"""`python -m app.…` shows no traceback when it is interrupted, or when nobody reads its output."""

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
        return
    # Another broken pipe leads to a server, or to a program that died.
    if isinstance(error, BrokenPipeError) and _has_no_reader():
        return
    # FastAPI imports OpenTelemetry, which reads its own variables before ours are checked.
    is_set = any(name.startswith("OTEL_") for name in os.environ)
    if is_set and isinstance(error, ValueError) and _module(place).startswith("opentelemetry."):
        _say(f"A variable of OpenTelemetry (OTEL_*) is wrong: {error}")
        return
    if not isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, place)


def _module(place: TracebackType | None) -> str:
    """The module that raised the error."""
    while place and place.tb_next:
        place = place.tb_next
    return place.tb_frame.f_globals["__name__"] if place else ""


def _has_no_reader() -> bool:
    """Whether the output is a pipe that nobody reads any more."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return any(seen & (select.POLLERR | select.POLLHUP) for _, seen in watched.poll(0))


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        if not isinstance(error, BrokenPipeError):  # the reader needs no more, such as `head`
            _say(f"The output cannot be written: {error.strerror}.")
            os._exit(1)


def drop_output() -> None:
    """Otherwise Python writes again, as it ends, what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
