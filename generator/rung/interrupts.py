import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Ctrl-C, a kill and a closed terminal: each a KeyboardInterrupt, but only inside `allowed()`.

    Outside it, where a step must happen wholly or not at all, they are kept waiting; so they are
    for the rest of the process, whose outcome is then decided and only to be reported.
    """

    def __init__(self) -> None:
        self._allowed = False
        self._waiting = False
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and a shell's & leave it
                signal.signal(number, self._arrive)

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
        self._allowed = False  # A second Ctrl-C must not stop what cleans up after the first.
        raise KeyboardInterrupt


def let_the_outcome_stand() -> None:
    """For the very end: Python gives up its handlers before it exits, and what arrives after that
    would end the process with another code than it has earned."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
