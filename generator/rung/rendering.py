"""Renders a template with Copier, and turns its errors into readable messages."""

import io
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import MappingProxyType
from typing import Any, NamedTuple
from unicodedata import normalize

import yaml

from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.git import as_stored, reason
from rung.questions import refuse_foreign, refuse_unused
from rung.reading import UnreadableError, read_yaml
from rung.template import Template

ANSWERS_FILE = ".copier-answers.yml"
_CORRECT_MODE = "_sync_git_index_executable_bit"


def render(
    project: Path,
    source: Template,
    given: Mapping[str, Answer],
    defaults: Mapping[str, Answer],
    *,
    ask: bool,
) -> Mapping[str, Any]:
    """Render a new project; returns all answers, the template's own defaults among them."""
    by_default: dict[str, Any] = {"project_name": _title(project.name), **defaults}
    if not ask:
        return dict(_rendered(project, source, given, by_default).answers.combined)
    from copier.errors import CopierAnswersInterrupt

    from rung import asking

    print(asking.KEYS)
    settled: Mapping[str, Any] = {}
    while True:
        with asking.going_back() as keys:
            try:
                worker = _rendered(project, source, given, by_default, settled, ask=True)
                answers, agreed = worker.answers, asking.agreed(_recorded(project))
            except CopierAnswersInterrupt as stopped:
                if not keys.went_back:
                    raise
                answers, agreed = stopped.answers, False
        if agreed:
            return dict(answers.combined)
        by_default |= answers.user
        settled = asking.before_the_last(answers, given)
        shutil.rmtree(project)  # Files of the previous stage must not stay.
        project.mkdir()


def _rendered(
    project: Path,
    source: Template,
    given: Mapping[str, Answer],
    by_default: Mapping[str, Any],
    settled: Mapping[str, Any] = MappingProxyType({}),
    *,
    ask: bool = False,
) -> Any:
    with _errors_in_words(source.src), _quick_for_each_file():
        from copier import run_copy

        worker = run_copy(
            source.src,
            project,
            data={**settled, **given},
            user_defaults=dict(by_default),
            vcs_ref=source.ref,
            defaults=not ask,
            overwrite=True,
            quiet=True,
        )
        questions = worker.template.questions_data
        refuse_foreign(questions)
        _refuse_git_folders(project)
        refuse_unused(given, questions, _recorded(project))
        return worker


@dataclass(frozen=True)
class Rendered:
    folder: Path
    answers: Mapping[str, Any]
    """The recorded answers, including Copier's own entries."""
    questions: Mapping[str, Any]
    excludes: Sequence[str]
    written_once: Callable[[Path], bool]
    """True for a file that is never changed once it exists (Copier's _skip_if_exists)."""

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
    """Render recorded answers into a folder, at the recorded version or at ref."""
    folder.mkdir()
    (folder / ANSWERS_FILE).write_text(
        yaml.safe_dump(dict(recorded), allow_unicode=True), encoding="utf-8"
    )
    with _errors_in_words(recorded["_src_path"]), _quick_for_each_file():
        from copier import Settings, VcsRef, load_settings, run_copy

        # Without the person's own defaults: a step must not depend on who takes it.
        settings = Settings(trust=load_settings().trust)
        # run_recopy would do the same, and fetch the template a second time for the questions.
        worker = run_copy(
            recorded["_src_path"],
            folder,
            data=dict(given or {}),
            vcs_ref=ref or VcsRef.CURRENT,
            exclude=excludes,
            settings=settings,
            defaults=True,
            overwrite=True,
            quiet=True,
        )
        questions = worker.template.questions_data
        refuse_foreign(questions)
        _refuse_git_folders(folder)
        answers = _recorded(folder)
        refuse_unused(given or {}, questions, answers)
    return Rendered(
        folder,
        answers,
        questions,
        worker.template.exclude,
        worker.match_skip,
    )


@contextmanager
def _errors_in_words(src: str) -> Iterator[None]:
    from copier import load_settings
    from copier.errors import CopierError, SettingsError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError, local

    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            load_settings()  # Otherwise a broken file of the person's looks like the template's.
            with local.env(**as_stored()):  # Copier starts git with these variables.
                yield
    except KeyboardInterrupt:  # Copier's own subclass is also a CopierError.
        raise
    except ProcessExecutionError as error:
        why = reason(error.stderr, int(error.retcode or 1))
        if missing := re.search(r"invalid reference: (\S+)|pathspec '(.+)' did not match", why):
            raise RungError(
                f"The template {src} does not have {missing[1] or missing[2]}. Push this tag or "
                "commit there, or pass --template with a checkout or a git URL that has it."
            ) from error
        raise RungError(f"The template {src} cannot be fetched: {why}") from error
    except SettingsError as error:
        raise RungError(
            f"Copier's settings cannot be read: {_one_line(error)}. Correct that file, or name "
            "another one in COPIER_SETTINGS_PATH."
        ) from error
    except (CopierError, TemplateError) as error:
        # Copier names its option --trust, which rung does not have.
        place = "https://copier.readthedocs.io/en/stable/settings/"
        trust = f" If you trust it, list it under trust in Copier's settings: {place}"
        said = re.sub(" If you trust this template.*", trust, _one_line(error))
        raise RungError(f"The template {src} cannot be rendered: {said}") from error
    except ValueError as error:
        if str(error).startswith("Unknown revision"):
            raise RungError(f"The template {src} does not have this version ({error}).") from error
        raise UsageError(_explained(error)) from error
    # An untrusted template is a program: its settings and expressions can raise any of these.
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError,
        TypeError, yaml.YAMLError,
    ) as error:  # fmt: skip
        if isinstance(error, TypeError) and _question_of(error):
            raise UsageError(_explained(error)) from error
        kind = type(error).__name__
        raise RungError(
            f"The template {src} cannot be rendered: {kind}: {_one_line(error)}"
        ) from error


class _PlainText(NamedTuple):
    text: str

    def render(self, *_: object, **__: object) -> str:
        return self.text


@contextmanager
def _quick_for_each_file() -> Iterator[None]:
    """Saves a third of a render's processor time (docs/decisions/069).

    For each file, Copier renders each part of its path, and Jinja keeps no compiled string. Then
    Copier asks git for a setting, to correct the modes of tracked files. Rung renders into new
    folders, where no file is tracked.
    """
    from copier._main import Worker
    from jinja2 import Environment

    from_string = Environment.from_string
    compiled_once = cache(from_string)
    correct_mode = getattr(Worker, _CORRECT_MODE, None)

    def compiled(jinja: Environment, source: Any, *further: Any, **named: Any) -> Any:
        starts = (jinja.block_start_string, jinja.variable_start_string, jinja.comment_start_string)
        by_line = jinja.line_statement_prefix or jinja.line_comment_prefix
        is_plain = isinstance(source, str) and not by_line
        if is_plain and not any(start in source for start in (*starts, "\n", "\r")):
            return _PlainText(source)
        return compiled_once(jinja, source, *further, **named)

    Environment.from_string = compiled  # type: ignore[method-assign, assignment]
    setattr(Worker, _CORRECT_MODE, lambda *_: None)
    try:
        yield
    finally:
        Environment.from_string = from_string  # type: ignore[method-assign]
        setattr(Worker, _CORRECT_MODE, correct_mode)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _refuse_git_folders(folder: Path) -> None:
    """git would run the programs that a file in such a folder names."""
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            # Some file systems read all of these as .git: other letter cases, dots, spaces or
            # invisible characters at the end, the short form on Windows.
            plain = "".join(c for c in name.casefold() if c.isprintable()).rstrip(". ")
            if plain in {".git", "git~1"}:
                path = (Path(top) / name).relative_to(folder)
                raise RungError(
                    f"The template renders {path}, which git would read as a repository's own "
                    "file. Nothing was run. Use another template."
                )


def _title(folder: str) -> str:
    """web-shop: Web Shop."""
    # macOS may write an accent as a second character.
    words = (word for word in re.split(r"[-_.\s]+", normalize("NFC", folder)) if word)
    return " ".join(word[0].upper() + word[1:] for word in words)[:60].rstrip()


def _question_of(error: Exception) -> str:
    """Only some of Copier's errors name the question, so it is looked for in the traceback."""
    from copier._user_data import Question

    frames = (frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__))
    return next((one.var_name for one in frames if isinstance(one, Question)), "")


def _explained(error: Exception) -> str:
    """Copier's refusal of an answer, reworded to begin with the question's name."""
    refusal = _one_line(error)
    if required := re.fullmatch(r'Question "(\w+)" is required', refusal):
        return f"{required[1]} has no default for these answers. Pass --data {required[1]}=…"
    named = r"(Validation error for question|Invalid choice for) '(\w+)':"
    refusal, names_it = re.subn(named, r"\2:", refusal)
    question = "" if names_it else _question_of(error)
    return f"{question}: {refusal}" if question else refusal


def _recorded(folder: Path) -> Mapping[str, Any]:
    try:
        recorded = read_yaml(folder / ANSWERS_FILE)
    except UnreadableError as error:
        raise RungError(f"The template renders no usable {ANSWERS_FILE}: {error}.") from error
    if not isinstance(recorded, Mapping):
        raise RungError(f"The template renders no usable {ANSWERS_FILE}: it is not a mapping.")
    return recorded
