import inspect
import random
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import yaml

type Steps = Callable[["Repo"], Iterator[None]]

# adds: new files. changes: a line here and there. rewrites: deletes or replaces text that another
# edit might change. overhauls: changes the whole repo, so that no other edit finds its place.
type Kind = Literal["adds", "changes", "rewrites", "overhauls"]

TOPICS = (
    "dependencies",
    "configuration",
    "business",
    "migrations",
    "project_files",
    "own_files",
    "rewrites",
    "overhauls",
)


@dataclass(frozen=True)
class Edit:
    name: str
    topic: str
    kind: Kind
    steps: Steps

    def made(self, root: Path) -> Iterator[None]:
        """Makes the edit. The iterator's next step asserts that it is still there."""
        steps = self.steps(Repo(root))
        next(steps)
        return steps


@dataclass(frozen=True)
class Repo:
    """A team's repo in an editor. A text that is missing or stands twice is an error."""

    root: Path

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        self.write(name, text.replace(old, new))

    def insert(self, name: str, new: str, *, before: str) -> None:
        self.replace(name, before, new + before)

    def append(self, name: str, text: str) -> None:
        self.write(name, self.read(name) + text)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink()
            folder = (self.root / name).parent
            while not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent

    def move(self, old: str, new: str) -> None:
        self.write(new, self.read(old))
        (self.root / new).chmod((self.root / old).stat().st_mode)
        self.remove(old)

    def has(self, name: str) -> bool:
        return (self.root / name).exists()

    def files(self, pattern: str) -> list[str]:
        found = self.root.glob(pattern)
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())

    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads(self.read("pyproject.toml"))

    def yaml(self, name: str) -> Any:
        return yaml.safe_load(self.read(name))


def edit(kind: Kind) -> Callable[[Steps], Steps]:
    def kept(steps: Steps) -> Steps:
        steps.__dict__["kind"] = kind
        return steps

    return kept


def corpus() -> list[Edit]:
    return [found for topic in TOPICS for found in _edits_of(topic)]


def _edits_of(topic: str) -> Iterator[Edit]:
    """In the order of the source."""
    for name, steps in vars(import_module(f"edits.{topic}")).items():
        if inspect.isfunction(steps) and "kind" in steps.__dict__:
            variant_name = (steps.__doc__ or name.replace("_", " ")).strip()
            yield Edit(variant_name, topic, steps.__dict__["kind"], steps)


EDITS = corpus()


def of(*kinds: Kind) -> list[Edit]:
    return [one for one in EDITS if one.kind in kinds]


def drawn(number: int, edits: Iterable[Edit]) -> list[Edit]:
    """20 edits, always the same ones, in the corpus's order."""
    edits = list(edits)
    chosen = random.Random(number).sample(range(len(edits)), 20)  # noqa: S311
    return [edits[i] for i in sorted(chosen)]


GROUPS: dict[str, list[Edit]] = {
    "all that go together": of("adds", "changes"),
    "all that rewrite, and the additions": of("adds", "rewrites"),
    **{
        f"20 together, {number}": drawn(number, of("adds", kind))
        for number, kind in enumerate[Kind](("changes", "changes", "changes", "rewrites"), 1)
    },
    **{f"{one.name}, and the additions": [*of("adds"), one] for one in of("overhauls")},
}

# The two groups that change most take every journey. The others climb the whole ladder.
ANOTHER_BUSINESS = "the sample's domain replaced by another business, and the additions"
EVERYWHERE = ("all that go together", ANOTHER_BUSINESS)
