# Rung's file: advancing to another stage may change it.
"""One trace from the request through what it asks of others.

Whether a request is sampled is decided before anything else, and `span` does nothing in one that
is not. Such a request still has a trace id: its log lines and outgoing calls carry it.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import NamedTuple

from opentelemetry.trace import SpanKind
from structlog.typing import EventDict

type Attributes = Mapping[str, str | int]

# https://www.w3.org/TR/trace-context: version, trace id, the caller's span id, flags. Ids of zeros
# and version ff are invalid; a later version may have more behind.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_SAMPLED = 0x01
# As long a tracestate as the standard wants to see passed on.
_LONGEST_STATE = 512

_current: ContextVar["Span | None"] = ContextVar("span", default=None)


class Sampling(NamedTuple):
    """The share of traces that is recorded, and whether a caller's decision goes before it."""

    ratio: float
    follows_caller: bool

    def takes(self, trace_id: int) -> bool:
        # By the lower half of the id, as every OpenTelemetry library: all take the same traces.
        return (trace_id & 0xFFFF_FFFF_FFFF_FFFF) < self.ratio * 2**64


class Trace:
    __slots__ = ("is_sampled", "record", "state", "trace_id")

    def __init__(
        self, trace_id: int, is_sampled: bool, record: Callable[["Span"], None], state: str = ""
    ) -> None:
        self.trace_id = trace_id
        self.is_sampled = is_sampled
        self.record = record
        self.state = state


class Span:
    """One operation of a trace. What happens between enter and leave, or within `with`, is below
    it; it is recorded when it ends."""

    __slots__ = (
        "_begun",
        "_outside",
        "attributes",
        "ended",
        "error",
        "kind",
        "name",
        "parent_id",
        "span_id",
        "started",
        "trace",
    )

    def __init__(
        self,
        trace: Trace,
        parent_id: int,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
    ) -> None:
        self.trace = trace
        self.span_id = random.getrandbits(64) or 1
        self.parent_id = parent_id
        self.name = name
        self.kind = kind
        self.attributes = dict(attributes) if attributes else {}
        self.error = ""
        self.started = time.time_ns()
        self.ended = 0
        self._begun = time.perf_counter_ns()
        self._outside: Token[Span | None]

    def enter(self) -> None:
        self._outside = _current.set(self)

    def leave(self) -> None:
        _current.reset(self._outside)

    def end(self, error: str = "", after: float | None = None) -> None:
        """Now, or so many seconds after its start."""
        self.error = error
        self.ended = self.started + int((self.seconds if after is None else after) * 1e9)
        self.trace.record(self)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return (time.perf_counter_ns() - self._begun) / 1e9

    def __enter__(self) -> "Span":
        self.enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.leave()
        self.end(kind.__qualname__ if kind else "")


_NOTHING = nullcontext()


def span(
    name: str, attributes: Attributes | None = None, kind: SpanKind = SpanKind.INTERNAL
) -> AbstractContextManager[Span | None]:
    """Record what happens in a `with` block, if this request is sampled; else it is None.

        with tracing.span("price the basket", {"basket.lines": len(lines)}):

    The name says what kind of thing happens, not to whom: no ids, no values, nothing personal.
    """
    parent = _current.get()
    if parent is None or not parent.trace.is_sampled:
        return _NOTHING
    return Span(parent.trace, parent.span_id, name, kind, attributes)


def leaf(name: str, attributes: Attributes, kind: SpanKind) -> Span | None:
    """For callbacks, which cannot use `with`: to be ended by hand, with nothing below it."""
    parent = _current.get()
    if parent is None or not parent.trace.is_sampled:
        return None
    return Span(parent.trace, parent.span_id, name, kind, attributes)


def is_recording() -> bool:
    current = _current.get()
    return current is not None and current.trace.is_sampled


def add_ids(logger: object, method: str, line: EventDict) -> EventDict:
    """To a line of the log when it is written: to bind them for each span would cost more."""
    if current := _current.get():
        line["trace_id"] = f"{current.trace.trace_id:032x}"
        line["span_id"] = f"{current.span_id:016x}"
    return line


def carried_on() -> dict[str, str]:
    """Headers for an outgoing request: who receives them continues this trace, or leaves it."""
    current = _current.get()
    if current is None:
        return {}
    trace = current.trace
    flags = _SAMPLED if trace.is_sampled else 0
    headers = {"traceparent": f"00-{trace.trace_id:032x}-{current.span_id:016x}-{flags:02x}"}
    return headers | {"tracestate": trace.state} if trace.state else headers


class Tracer:
    """Begins the traces of requests. What it records goes nowhere until `record` is set."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self.record: Callable[[Span], None] = lambda span: None

    def begin(self, name: str, headers: list[tuple[bytes, bytes]]) -> Span:
        """The request's own span, below its caller's if it brings one."""
        caller, state = None, ""
        for header, value in headers:
            if header == b"traceparent":
                caller = _TRACEPARENT.fullmatch(value)
            elif header == b"tracestate":
                state = value.decode("latin-1")
        if caller is None:
            trace_id = random.getrandbits(128) or 1
            trace = Trace(trace_id, self._sampling.takes(trace_id), self.record)
            return Span(trace, 0, name, SpanKind.SERVER)
        trace_id, parent_id, flags = (int(part, 16) for part in caller.groups())
        if self._sampling.follows_caller:
            is_sampled = bool(flags & _SAMPLED)
        else:
            is_sampled = self._sampling.takes(trace_id)
        passed_on = state if len(state) <= _LONGEST_STATE and state.isascii() else ""
        trace = Trace(trace_id, is_sampled, self.record, passed_on)
        return Span(trace, parent_id, name, SpanKind.SERVER)
