"""The answers that a person gives: on the command line or in a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rung.errors import UsageError, is_printable

PlainAnswer = str | int | float | bool
Answer = PlainAnswer | list[Any] | dict[str, Any]
"""A list or a mapping answers a question of a fork: `multiselect: true`, `type: yaml`."""


def read_answers(file: Path) -> dict[str, Answer]:
    """The answers in a YAML file: one written by hand, or another project's .copier-answers.yml."""
    from rung.reading import UnreadableError, read_bytes

    try:
        return parse_answers_file(f"The answers file {file}", read_bytes(file))
    except UnreadableError as error:
        raise UsageError(f"The answers file {file} cannot be read: {error}.") from error


def parse_answers_file(what: str, written: bytes) -> dict[str, Answer]:
    """Each answer as it is written, like an answer on the command line: yes and 0123 stay text."""
    from rung.reading import UnreadableError, parse_yaml, written_scalars

    try:
        content = parse_yaml(written)
    except UnreadableError as error:
        reason = str(error)
        words = reason[3:] if reason.startswith("it is not YAML") else f"cannot be read: {reason}"
        raise UsageError(f"{what} {words}.") from error
    if not isinstance(content, Mapping):
        raise UsageError(
            f"{what} is not a mapping of questions to answers. Write each line as question: answer."
        )
    answers = {str(key): value for key, value in content.items()}
    given = {key: _checked(what, key, value) for key, value in answers.items() if not _private(key)}
    written_as = written_scalars(written)
    return {key: written_as.get(key, value) for key, value in given.items()}


def _private(key: str) -> bool:
    """Copier's own entries: the place and the version of the template."""
    return key.startswith("_")


def _checked(what: str, key: str, value: object) -> Answer:
    if isinstance(value, PlainAnswer | list | dict):
        return value
    raise UsageError(
        f"{what}: {key} must be a text, a number, true, false, a list or a mapping, "
        f"not {str(value)[:60]!r}."
    )


def parse_answers(pairs: Iterable[str]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"--data {pair}: write it as --data key=value.")
        if _private(key):
            raise UsageError(f"--data {pair}: names that begin with _ are Copier's. Remove it.")
        if not _is_utf8(pair):
            raise UsageError(f"--data {key}: the answer is not UTF-8. Write it as UTF-8.")
        answers[key] = value
    return answers


def _is_utf8(text: str) -> bool:
    """Python decodes an argument's invalid bytes to lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def refuse_unprintable(what: str, text: str) -> None:
    if not is_printable(text):
        raise UsageError(f"{what} holds control characters or is not UTF-8. Choose another name.")
