"""Every write that was acknowledged, and what clients saw in each step. The file is for people."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

FAULTS = ("failed", "logged_out", "lost", "stale", "revived")


class Times:
    """How long requests took, in ms to three digits: those of a million are few numbers."""

    def __init__(self, times: Iterable[float] = ()) -> None:
        self.counted: Counter[float] = Counter()
        for one in times:
            self.append(one)

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, int]]) -> Self:
        made = cls()
        made.counted.update(dict(pairs))
        return made

    def append(self, milliseconds: float) -> None:
        self.counted[float(f"{milliseconds:.3g}")] += 1

    def __len__(self) -> int:
        return self.counted.total()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Times) and self.counted == other.counted

    __hash__ = None  # type: ignore[assignment]

    def at(self, percent: int) -> float:
        """As long as these percent took at most."""
        left = -(-len(self) * percent // 100)
        for one, count in sorted(self.counted.items()):
            left -= count
            if left <= 0:
                return one
        return 0.0


@dataclass
class Counts:
    """Of one step."""

    name: str
    seconds: float = 0.0
    milliseconds: Times = field(default_factory=Times)
    # While a server is away, as announced: a runbook restarts Postgres.
    announced: int = 0
    # A write whose connection was closed without an answer, sent again with the same key.
    asked_again: int = 0
    failed: int = 0
    logged_out: int = 0
    lost: int = 0
    stale: int = 0
    revived: int = 0
    # Lost with the primary, and listed by the runbook: the replica had not received them.
    given_up: int = 0
    # From the moment when clients were sent to the new primary to the first acknowledged write.
    until_written: float = 0.0

    @property
    def p50(self) -> float:
        return self.milliseconds.at(50)

    @property
    def p99(self) -> float:
        return self.milliseconds.at(99)

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, fault) for fault in FAULTS)


class Ledger:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.accounts: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, set[str]] = {"orders": set(), "reviews": set(), "uploads": set()}
        self.files: dict[str, list[tuple[str, str]]] = {}  # of an e-mail: upload, SHA-256
        self.ended: list[str] = []  # tokens
        self.kept: dict[str, str] = {}  # of an e-mail: a token that nobody uses until the end
        self.seen: list[str] = []  # what was wrong, in words
        self.written: list[float] = []  # when each write of this run was acknowledged
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # else it was cut
                    self._take(json.loads(line))

    def note(self, kind: str, **what: Any) -> None:
        entry = {"kind": kind, **what}
        self._take(entry)
        self.written.append(time.time())
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def forget(self, kind: str, key: str) -> None:
        """It is lost as announced. Nobody looks for the file of such an upload."""
        self.note("forgotten", of=kind, key=key)

    def _take(self, entry: dict[str, Any]) -> None:
        match entry["kind"]:
            case "account":
                self.accounts[entry["email"]] = entry
            case "kept":
                self.kept[entry["email"]] = entry["token"]
            case "ended":
                self.ended.append(entry["token"])
            case "forgotten":
                self._forget(entry["of"], entry["key"])
            case table:
                self.rows[table].add(entry["id"])
                if table == "uploads":
                    kept = self.files.setdefault(entry["email"], [])
                    kept.append((entry["id"], entry["sha256"]))

    def _forget(self, kind: str, key: str) -> None:
        match kind:
            case "ended":
                self.ended.remove(key)
            case "accounts":
                del self.accounts[key]
            case table:
                self.rows[table].remove(key)
                if table == "uploads":
                    for email, kept in self.files.items():
                        self.files[email] = [one for one in kept if one[0] != key]
