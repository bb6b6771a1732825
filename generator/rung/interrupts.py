"""Delays Ctrl-C, a kill and a closed terminal until stopping is safe."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns each signal into a KeyboardInterrupt, but only inside `allowed()`.

    Outside it a signal waits, because a step is applied completely or not. After the last
    `allowed()` a signal has no effect: the result is decided, and only the report is left.
    """

    def __init__(self) -> None:
        self._allowed = False
        self._waiting = False
        _handle_signals(self._arrive)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        self._allowed = True
        try:
            if self._waiting:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if not self._allowed:
            self._waiting = True
            return
        self._allowed = False  # A second Ctrl-C must not stop the cleanup after the first.
        raise KeyboardInterrupt


def hear_a_kill_as_ctrl_c() -> None:
    """For a command that needs no Interrupts: it must remove its temporary files."""
    _handle_signals(signal.default_int_handler)


def _handle_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and a shell's & ignore it
            signal.signal(number, handler)


@contextmanager
def left_to_the_pager() -> Iterator[None]:
    """A pager handles Ctrl-C, such as to stop a search. Without rung it would keep the terminal."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN: a child would inherit it
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_signals() -> None:
    """Python drops its handlers before it exits: a late signal would change the exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
