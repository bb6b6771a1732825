import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.git import last_line
from rung.questions import refuse_foreign, refuse_untaken
from rung.template import Template

ANSWERS_FILE = ".copier-answers.yml"


def render(
    project: Path, source: Template, given: Mapping[str, Answer], *, ask: bool
) -> Mapping[str, Any]:
    """A new project's files; answers with all answers, the template's own defaults among them."""
    with _spoken_errors(source.src):
        from copier import run_copy

        worker = run_copy(
            source.src,
            project,
            data=dict(given),
            user_defaults={"project_name": _spoken(project.name)},
            vcs_ref=source.ref,
            defaults=not ask,
            overwrite=True,
            quiet=True,
        )
        questions = worker.template.questions_data
        refuse_foreign(questions)
        refuse_untaken(given, questions, _recorded(project))
    return worker.answers.combined


@dataclass(frozen=True)
class Rendered:
    folder: Path
    answers: Mapping[str, Any]
    """As recorded, Copier's own entries among them."""
    questions: Mapping[str, Any]
    excludes: Sequence[str]
    kept: Callable[[Path], bool]
    """Whether a file that exists is never touched again (Copier's _skip_if_exists)."""

    @property
    def public(self) -> dict[str, Any]:
        return {key: value for key, value in self.answers.items() if not key.startswith("_")}


def render_again(
    folder: Path,
    recorded: Mapping[str, Any],
    *,
    ref: str | None = None,
    given: Mapping[str, Answer] | None = None,
    excludes: Sequence[str] = (),
) -> Rendered:
    """The files that recorded answers stand for, with nobody's edits; ref: another version's."""
    folder.mkdir()
    (folder / ANSWERS_FILE).write_text(yaml.safe_dump(dict(recorded), allow_unicode=True))
    with _spoken_errors(recorded["_src_path"]):
        from copier import VcsRef, run_recopy

        worker = run_recopy(
            folder,
            data=dict(given or {}),
            vcs_ref=ref or VcsRef.CURRENT,
            exclude=excludes,
            defaults=True,
            overwrite=True,
            quiet=True,
        )
        questions = worker.template.questions_data
        refuse_foreign(questions)
        answers = _recorded(folder)
        refuse_untaken(given or {}, questions, answers)
    return Rendered(
        folder,
        answers,
        questions,
        worker.template.exclude,
        worker.match_skip,
    )


@contextmanager
def _spoken_errors(src: str) -> Iterator[None]:
    from copier.errors import CopierError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError

    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except KeyboardInterrupt:  # Copier's own kind is a CopierError as well.
        raise
    except ProcessExecutionError as error:
        reason = last_line(error.stderr)
        raise RungError(f"The template {src} cannot be fetched: {reason}") from error
    except (CopierError, TemplateError) as error:
        raise RungError(f"The template {src} cannot be rendered: {error}") from error
    except ValueError as error:
        if str(error).startswith("Unknown revision"):
            raise RungError(f"The template {src} does not have it ({error}).") from error
        raise UsageError(_explained(str(error))) from error


def _spoken(folder: str) -> str:
    """web-shop: Web Shop."""
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[-_.\s]+", folder) if word)


def _explained(refusal: str) -> str:
    """Copier's words for an answer it does not take, begun with the question's name."""
    if required := re.fullmatch(r'Question "(\w+)" is required', refusal):
        return f"{required[1]} has no default for these answers. Pass --data {required[1]}=…"
    return re.sub(r"(Validation error for question|Invalid choice for) '(\w+)':", r"\2:", refusal)


def _recorded(folder: Path) -> Mapping[str, Any]:
    recorded: Mapping[str, Any] = yaml.safe_load((folder / ANSWERS_FILE).read_bytes())
    return recorded
