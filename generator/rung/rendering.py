import io
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.git import last_line
from rung.template import Template


def render(
    project: Path, source: Template, given: Mapping[str, Answer], *, ask: bool
) -> Mapping[str, Any]:
    from copier import run_copy
    from copier.errors import CopierError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError

    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
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
    except KeyboardInterrupt:  # Copier's own kind is a CopierError as well.
        raise
    except ProcessExecutionError as error:
        reason = last_line(error.stderr)
        raise RungError(f"The template {source.src} cannot be fetched: {reason}") from error
    except (CopierError, TemplateError) as error:
        raise RungError(f"The template {source.src} cannot be rendered: {error}") from error
    except ValueError as error:
        raise UsageError(_explained(str(error))) from error
    _refuse_unknown(given, worker.template.questions_data)
    return worker.answers.combined


def _spoken(folder: str) -> str:
    """web-shop: Web Shop."""
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[-_.\s]+", folder) if word)


def _explained(refusal: str) -> str:
    """Copier's words for an answer it does not take, begun with the question's name."""
    if required := re.fullmatch(r'Question "(\w+)" is required', refusal):
        return f"{required[1]} has no default for these answers. Pass --data {required[1]}=…"
    return re.sub(r"(Validation error for question|Invalid choice for) '(\w+)':", r"\2:", refusal)


def _refuse_unknown(given: Mapping[str, Answer], questions: Mapping[str, object]) -> None:
    if not {"project_slug", "stage"} <= questions.keys():
        raise UsageError(
            "This Copier template is not Rung's: it asks for no project_slug and no stage."
        )
    if unknown := given.keys() - questions.keys():
        raise UsageError(
            f"The template does not ask for {', '.join(sorted(unknown))}. "
            f"It asks for {', '.join(questions)}."
        )
