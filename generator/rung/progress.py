import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def working(on: str) -> Iterator[None]:
    """A spinner on stderr while a person watches it, else nothing."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(file=sys.stderr).status(f"{on} …"):
        yield
