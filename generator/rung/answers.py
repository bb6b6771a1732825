from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from rung.errors import UsageError

Answer = str | int | float | bool


def read_answers(file: Path) -> dict[str, Answer]:
    """The answers in a YAML file: one written by hand, or another project's .copier-answers.yml."""
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"The answers file {file} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        raise UsageError(f"The answers file {file} is not YAML{line}.") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"The answers file {file} is not a mapping of questions to answers.")
    answers = {str(key): value for key, value in content.items()}
    return {key: _plain(file, key, value) for key, value in answers.items() if not _private(key)}


def _private(key: str) -> bool:
    """Copier's own entries: where the other project's template lies, and which version."""
    return key.startswith("_")


def _plain(file: Path, key: str, value: object) -> Answer:
    if isinstance(value, Answer):
        return value
    raise UsageError(f"{file}: {key} must be one plain value, not {value!r}.")


def parse_answers(pairs: Iterable[str]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise UsageError(f"--data {pair}: write it as --data key=value.")
        answers[key] = value
    return answers
