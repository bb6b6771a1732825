"""Follows a how-to page literally: runs its commands, writes its files, makes its edits.

A block of commands is fenced as `sh`. The line above a file's block says where it goes:
"Write `FILE`:" or "At the end of `FILE`:". A block fenced as `diff` edits the file named last, at
each place between two lines of `@@`.
"""

import re
from pathlib import Path

from serving import run

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"(?:(Write)|(At the end of)|[Ii]n) `([\w./*-]+)`[:,]")


class PageError(AssertionError):
    """The page says something that cannot be done."""


def follow(page: Path, project: Path) -> None:
    text = page.read_text(encoding="utf-8")
    at = 0
    mode, file = "", Path()
    for block in BLOCK.finditer(text):
        for named in PLACE.finditer(text, at, block.start()):
            mode, file = named[1] or named[2] or "edit", only(project, named[3])
        at = block.end()
        language, content = block[1], block[2]
        if language == "sh":
            follow_commands(content, project)
        elif language == "diff":
            for hunk in content.split("@@\n"):
                edit(file, hunk)
        elif mode == "Write":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        elif mode == "At the end of":
            end = "\n\n" if file.suffix == ".py" else ""
            file.write_text(file.read_text(encoding="utf-8") + end + content, encoding="utf-8")
        else:
            raise PageError(f"{page.name} does not say where this goes:\n{content}")


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
