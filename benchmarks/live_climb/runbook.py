"""Takes the commands out of a runbook, in order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

type Part = Literal["do", "check", "back"]

RESTART = "$RESTART_POSTGRES"


class RunbookError(Exception):
    """Says which runbook cannot be followed, and why."""


@dataclass(frozen=True)
class Block:
    page: str
    section: str
    part: Part
    number: int
    commands: str
    fence: str

    @property
    def name(self) -> str:
        return f"{self.page}: {self.section}: {self.part} {self.number}"

    @property
    def is_announced(self) -> bool:
        return RESTART in self.commands


def blocks(page: Path, *fences: str) -> list[Block]:
    """Those fenced as `bash` or as named, and those of a page that this one says to follow.

    A paragraph that begins with Check or Back says what comes after it.
    """
    found: list[Block] = []
    section, part, fence = "", "do", None
    lines: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if fence is not None:
            if line.strip() != "```":
                lines.append(line)
                continue
            if fence in (fences or ("bash",)):
                same = [
                    one
                    for one in found
                    if (one.page, one.section, one.part) == (page.name, section, part)
                ]
                commands = "\n".join(lines)
                number = len(same) + 1
                found.append(Block(page.name, section, part, number, commands, fence))  # type: ignore[arg-type]
            fence, lines = None, []
        elif line.strip().startswith("```"):
            fence = line.strip().removeprefix("```")
        elif line.startswith("## "):
            section, part = line.removeprefix("## "), "do"
        elif followed := re.match(r"Follow \[.*\]\((.*)\)", line):
            found += blocks(page.parent / followed[1], *fences)
        elif named := re.match(r"(?:- )?(Check|Back)\b", line):
            part = named[1].lower()
        elif re.match(r"\d+\. ", line):
            part = "do"
    if fence is not None:
        raise RunbookError(f"{page}: a block of code has no end.")
    if not found:
        raise RunbookError(f"{page}: there are no commands in it.")
    return found


def section_of(page: Path, begin: str, parts: Sequence[Part] = ("do", "check")) -> str:
    """The functions of the page, and these parts of one section."""
    all_of_them = blocks(page)
    if not any(one.section.startswith(begin) for one in all_of_them):
        raise RunbookError(f"{page}: there are no commands in a section {begin!r}.")
    return "\n".join(
        one.commands
        for one in all_of_them
        if not one.section or (one.section.startswith(begin) and one.part in parts)
    )


def followed(text: str, runbooks: Path) -> str:
    """Instead of each line `follow PAGE SECTION` the commands and checks there, or its way back."""

    def commands(line: re.Match[str]) -> str:
        page, section, back = line.groups()
        return section_of(runbooks / page, section, ("back",) if back else ("do", "check"))

    return re.sub(r"(?m)^follow (\S+) (\S+)( back)?$", commands, text)


def the_way(pages: list[Path]) -> list[Block]:
    """The commands and checks of these runbooks."""
    return [one for page in pages for one in blocks(page) if one.part != "back" and not _last(one)]


def the_way_back(pages: list[Path]) -> list[Block]:
    """From the last step to the first. The last section of a page reverts its code."""
    last_first: list[Block] = []
    ends: list[Block] = []
    for page in reversed(pages):
        steps: dict[tuple[str, str], list[Block]] = {}
        for one in blocks(page):
            if _last(one):
                ends.append(one)
            elif one.part == "back":
                steps.setdefault((one.page, one.section), []).append(one)
        last_first += [one for section in reversed(steps) for one in steps[section]]
    return last_first + ends


def _last(block: Block) -> bool:
    return block.section.startswith("All the way back")
