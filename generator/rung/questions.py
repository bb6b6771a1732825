"""Checks answers against a template's questions: Copier silently drops or converts some."""

from collections.abc import Mapping
from typing import Any

from rung import stages
from rung.answers import Answer
from rung.errors import UsageError

_YES = {"true", "yes", "on", "y", "t", "1"}
_NO = {"false", "no", "off", "n", "f", "0"}

type Questions = Mapping[str, Mapping[str, Any]]


def refuse_foreign(questions: Questions) -> None:
    if not {"project_slug", "stage"} <= questions.keys():
        raise UsageError(
            "This Copier template is not Rung's: it asks for no project_slug and no stage. Pass "
            "--template with Rung's template or a fork of it."
        )


def refuse_unused(
    given: Mapping[str, Answer], questions: Questions, recorded: Mapping[str, Any]
) -> None:
    _refuse_unknown(given, questions)
    _refuse_neither_yes_nor_no(given, questions)
    _refuse_not_asked(given, questions, recorded)


def _refuse_unknown(given: Mapping[str, Answer], questions: Questions) -> None:
    asked = [key for key, question in questions.items() if question.get("when") is not False]
    if unknown := given.keys() - set(asked):
        raise UsageError(
            f"The template does not ask for {', '.join(sorted(unknown))}. "
            f"It asks for {', '.join(asked)}."
        )


def _refuse_neither_yes_nor_no(given: Mapping[str, Answer], questions: Questions) -> None:
    """Copier would read every other word as yes."""
    for key, value in given.items():
        if questions[key].get("type") == "bool" and str(value).lower() not in _YES | _NO:
            raise UsageError(f"{key}: {value!r} is neither yes nor no. Write true or false.")


def _refuse_not_asked(
    given: Mapping[str, Answer], questions: Questions, recorded: Mapping[str, Any]
) -> None:
    """Copier silently drops the answer to a question that it does not ask."""
    for key in sorted(given.keys() - recorded.keys()):
        if "when" not in questions[key] or questions[key].get("secret"):
            continue  # Copier used it, but never records it.
        here = recorded["stage"]
        first = _asked_from(questions[key], recorded)
        if first is not None and first.number > here:
            raise UsageError(
                f"{key} is not asked at {stages.named(here)}, but from {first} on. Remove it, "
                "and answer it when you advance."
            )
        raise UsageError(f"{key} does not apply with your other answers. Remove it.")


def _asked_from(question: Mapping[str, Any], recorded: Mapping[str, Any]) -> stages.Stage | None:
    from jinja2.sandbox import SandboxedEnvironment

    asked = SandboxedEnvironment().from_string(str(question["when"]))
    for stage in stages.LADDER:
        if asked.render({**recorded, "stage": stage.number}).strip().lower() in _YES:
            return stage
    return None
