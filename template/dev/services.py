# Rung's file: advancing to another stage may change it.
"""The services that this stage runs on, started on this machine for the commands that need them."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from dev import postgres

FILES = postgres.REPOSITORY / ".dev" / "files"

# In start order. A service is started unless its variable is set, and yields the variable's value.
SERVICES: dict[str, Callable[[Mapping[str, str]], AbstractContextManager[str]]] = {
    "DATABASE_URL": lambda environment: postgres.for_development(),
}


@contextmanager
def environment(given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """`given`, completed to all that the app needs. What had to be started runs meanwhile."""
    complete = dict(given)
    with ExitStack() as started:
        for variable, start in SERVICES.items():
            if not complete.get(variable):
                complete[variable] = started.enter_context(start(complete))
        complete.setdefault("SECRET_KEY", _secret_key())
        complete.setdefault("FILES_FOLDER", str(FILES))
        if complete["FILES_FOLDER"] == str(FILES):
            FILES.mkdir(parents=True, exist_ok=True)
        yield complete


def _secret_key() -> str:
    file = postgres.REPOSITORY / ".dev" / "secret_key"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(32))
    return file.read_text()
