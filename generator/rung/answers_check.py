"""Checks that the recorded answers match the files, and survive a step unchanged."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rung import stages
from rung.answers import Answer, PlainAnswer
from rung.errors import RungError, in_shell, shown
from rung.project import Project, is_rungs
from rung.reading import read_bytes, written_scalars
from rung.rendering import ANSWERS_FILE, Rendered, render_again
from rung.scratch import Scratch, Tree


def refuse_edited_by_hand(
    project: Project,
    recorded: Mapping[str, Any],
    rendered: Rendered,
    yours: Tree,
    before: Tree,
    scratch: Scratch,
) -> None:
    """After an edit by hand, a step would silently skip the files of that answer."""
    if not _doubtful(project, yours, before):
        return
    for number, (key, value) in enumerate(other_answers(project.answers, rendered)):
        files = _files(scratch, f"other-{number}", recorded, {key: value})
        telling = before.keys() ^ files.keys()
        if telling and all((path in yours) == (path in files) for path in telling):
            raise RungError(
                f"The answers say {key}: {in_words(project.answers[key])}, but the files belong to "
                f"{key}: {in_words(value)} ({shown(sorted(telling))}). If you edited "
                f"{project.folder / ANSWERS_FILE} by hand, put {key} back and commit; "
                "rung advance changes answers and files together."
            )


def _doubtful(project: Project, yours: Tree, before: Tree) -> bool:
    missing = (path for path in before.keys() - yours.keys() if is_rungs(path))
    extra = (path for path in yours.keys() - before.keys() if is_rungs(path))
    return any(missing) or any(_marked(project.folder / path) for path in extra)


def _marked(file: Path) -> bool:
    if not file.is_file():
        return False
    with file.open("rb") as lines:
        return b"Rung's file:" in lines.readline(200)


def other_answers(answers: Mapping[str, Any], rendered: Rendered) -> Iterator[tuple[str, Answer]]:
    """Each answer costs a render, so choices that decide on no file (a team) are left out."""
    for stage in stages.LADDER:
        if stage.number != answers["stage"]:
            yield "stage", stage.number
    hidden = (q.get("default") for q in rendered.questions.values() if q.get("when") is False)
    deciding = " ".join(map(str, (*rendered.excludes, *hidden)))
    for key, value in answers.items():
        choices = rendered.questions.get(key, {}).get("choices")
        if isinstance(value, bool):
            yield key, not value
        elif key != "stage" and re.search(rf"\b{re.escape(key)}\b", deciding):
            listed = choices if isinstance(choices, list) else ()
            named = choices.values() if isinstance(choices, Mapping) else listed
            yield from (
                (key, one) for one in named if isinstance(one, PlainAnswer) and one != value
            )


def _files(
    scratch: Scratch, name: str, recorded: Mapping[str, Any], given: Mapping[str, Answer]
) -> Tree:
    with suppress(RungError):  # This version does not have that stage.
        rendered = render_again(scratch.folder / name, recorded, given=given)
        return scratch.read_folder(rendered.folder)
    return {}


def refuse_changed(
    project: Project, given: Mapping[str, Answer], new: Rendered, where: str
) -> None:
    """Copier silently replaces an answer that is no longer valid with the default."""
    kept = new.public.keys() & project.answers.keys() - given.keys() - {"stage"}
    written = written_scalars(read_bytes(project.folder / ANSWERS_FILE))
    for key in sorted(kept):
        old, becomes = project.answers[key], in_words(new.public[key])
        # Copier turns a number into text where the question wants text: 0123 becomes 83.
        same = type(old) is type(new.public[key]) and in_words(old) == becomes
        if not same and written.get(key) != becomes:
            raise RungError(
                f"The answer {key}: {written.get(key) or in_words(old)} is not valid in {where}; "
                f"it would become {becomes}. Choose one: --data {key}=…"
            )


def differing(project: Project, given: Mapping[str, Answer]) -> dict[str, Answer]:
    """The given answers that the project does not have."""
    recorded = {key: in_words(value) for key, value in project.answers.items()}
    return {key: value for key, value in given.items() if recorded.get(key) != value}


def never_asked(project: Project, given: Mapping[str, Answer], new: Rendered) -> list[str]:
    return sorted(new.public.keys() - project.answers.keys() - given.keys())


class UnaskedError(RungError):
    """A new version has questions without an answer."""

    def __init__(self, message: str, *lines: str, questions: list[str]) -> None:
        super().__init__(message, *lines)
        self.questions = questions


def refuse_unasked(questions: list[str], new: Rendered, where: str) -> None:
    asked = [
        f"    --data {in_shell(f'{key}={in_words(new.public[key])}')}   "
        f"{new.questions[key].get('help', '')}"
        for key in questions
    ]
    raise UnaskedError(
        f"{where.capitalize()} has new questions, and rung adds or removes nothing without an "
        "answer. Answer them (these are the defaults):",
        *asked,
        questions=questions,
    )


def in_words(value: object) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
