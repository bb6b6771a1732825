"""Answers that `rung new` uses as defaults: the fork's and another project's."""

import json
from collections.abc import Mapping
from pathlib import Path

from rung.answers import Answer, parse_answers_file, read_answers
from rung.errors import UsageError
from rung.rendering import ANSWERS_FILE
from rung.template import is_git_url

# Answers that name the other project.
_ITS_OWN = {"project_name", "project_slug", "description"}


def company_defaults() -> dict[str, Answer]:
    """The answers in defaults.yml, which a fork installs with its rung."""
    file = Path(__file__).with_name("defaults.yml")
    return read_answers(file)


def answers_like(source: str) -> dict[str, Answer]:
    """The answers of a project or a preset, without its names."""
    if source.lstrip().startswith("{"):
        answers = parse_answers_file("The preset", source.encode(errors="replace"))
    elif is_git_url(source):
        answers = _fetched(source)
    else:
        path = Path(source)
        answers = read_answers(path / ANSWERS_FILE if path.is_dir() else path)
    return {key: value for key, value in answers.items() if key not in _ITS_OWN}


def preset(answers: Mapping[str, object]) -> str:
    """One line for --like: JSON, because YAML includes it."""
    shared = {k: v for k, v in answers.items() if k not in _ITS_OWN and not k.startswith("_")}
    return json.dumps(shared, ensure_ascii=False, default=str)  # YAML knows dates.


def _fetched(url: str) -> dict[str, Answer]:
    from rung.fleet.blobs import RepoError, files_at_head, git_dir
    from rung.fleet.sources import named

    try:
        with git_dir(named(url)) as (folder, variables):
            written = files_at_head(folder, variables, (ANSWERS_FILE,))[ANSWERS_FILE]
    except RepoError as error:
        raise UsageError(f"The answers of {named(url).name} cannot be read: {error}.") from error
    return parse_answers_file(f"The answers file of {named(url).name}", written)
