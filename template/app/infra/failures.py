# Rung's file: advancing to another stage may change it.
from collections.abc import Mapping
from typing import ClassVar


class Failure(Exception):
    """An answer that infrastructure gives a client: a status, words, and headers.

    The message, if there is one, is for the log only.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}


class Unavailable(Failure):
    """A server that this process depends on did not answer: the caller may try again soon."""

    status = 503
    title = "Not available right now"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}
