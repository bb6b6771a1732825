# Rung's file: advancing to another stage may change it.
"""The replica of a module's own database beside that of the common one."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

from dev.replicas import replica


@contextmanager
def beside(variable: str, environment: Mapping[str, str]) -> Iterator[str]:
    """URL of a replica of the database of `variable`, or "" if that is not on the server of
    DATABASE_URL: a replica has all databases of its server."""
    common, other = environment["DATABASE_URL"], environment.get(variable, "")
    is_there = other.rpartition("/")[0] == common.rpartition("/")[0]
    with replica.for_own(common) if is_there else nullcontext("") as url:
        yield url and urlsplit(url)._replace(path=urlsplit(other).path).geturl()
