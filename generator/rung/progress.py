"""Shows a spinner while a person waits at a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spinner(words: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(file=sys.stderr).status(f"{words} …"):
        yield
