"""Follows a how-to page literally: runs its commands, writes its files, makes its edits.

A block of commands is fenced as `sh`. The line above a file's block says where it goes:
"Write `FILE`:", "At the end of `FILE`:" or "In `FILE`:". A block fenced as `diff` edits that file,
at each place between two lines of `@@`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from serving import run

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line of text may end between any two words.
PLACE = re.compile(r"(?:(Write)|(At\s+the\s+end\s+of)|[Ii]n)\s+`([\w./*-]+)`[:,]")


class PageError(AssertionError):
    """The page says something that cannot be done."""


class Step(NamedTuple):
    kind: Literal["run", "write", "append", "edit"]
    # Empty where the step is to run commands. It may hold `*`.
    file: str
    content: str


def steps(page: Path) -> Iterator[Step]:
    text = page.read_text(encoding="utf-8")
    at = 0
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        places = list(PLACE.finditer(text, at, block.start()))
        at = block.end()
        if language == "sh":
            yield Step("run", "", content)
            continue
        if len(places) != 1:
            raise PageError(f"{page.name} names {len(places)} files, not one, for:\n{content}")
        write, append, file = places[0].groups()
        kind: Literal["write", "append", "edit"] = (
            "write" if write else "append" if append else "edit"
        )
        if (kind == "edit") != (language == "diff"):
            raise PageError(f"{page.name} does not say what to do in {file} with:\n{content}")
        yield Step(kind, file, content)


def follow(page: Path, project: Path) -> None:
    for kind, name, content in steps(page):
        if kind == "run":
            follow_commands(content, project)
            continue
        file = only(project, name)
        if kind == "write":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        elif kind == "append":
            end = "\n\n" if file.suffix == ".py" else ""
            file.write_text(file.read_text(encoding="utf-8") + end + content, encoding="utf-8")
        else:
            for hunk in content.split("@@\n"):
                edit(file, hunk)


def only(project: Path, name: str) -> Path:
    if "*" not in name:
        return project / name
    [file] = project.glob(name)
    return file


def edit(file: Path, hunk: str) -> None:
    """`…` stands for the rest of a line."""
    lines = hunk.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    pattern = re.escape(before).replace("…", "(.*)")
    text = file.read_text(encoding="utf-8")
    found = list(re.finditer(f"^{pattern}$", text, re.MULTILINE))
    if len(found) != 1:
        raise PageError(f"{file} has these lines {len(found)} times, not once:\n{before}")
    for rest in found[0].groups():
        after = after.replace("…", rest)
    start, end = found[0].span()
    file.write_text(text[:start] + after + text[end:], encoding="utf-8")


def follow_commands(commands: str, project: Path) -> None:
    done = run("sh", "-e", "-c", commands, within=project)
    if done.returncode != 0:
        raise PageError(f"{commands}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
