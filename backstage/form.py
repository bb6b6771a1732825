"""Writes template.yaml: the form that Backstage shows, made from the questions in copier.yml.

Run it after a question changed: uv run backstage/form.py
"""

from pathlib import Path
from typing import Any

import yaml
from jinja2.sandbox import SandboxedEnvironment

HERE = Path(__file__).resolve().parent
TYPES = {"str": "string", "int": "integer", "bool": "boolean"}

# Rules of copier.yml, written in Jinja there, that the form can express.
MORE: dict[str, dict[str, Any]] = {
    "project_slug": {"pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "maxLength": 40},
    "team": {"ui:field": "OwnerPicker", "ui:options": {"catalogFilter": {"kind": "Group"}}},
}
ALWAYS = ("project_name", "project_slug", "team")


def main() -> None:
    (HERE / "template.yaml").write_text(template(), encoding="utf-8")


def template() -> str:
    text = (HERE.parent / "copier.yml").read_text(encoding="utf-8")
    head = "# Written by form.py from copier.yml. Change the head in form.py: your organisation.\n"
    return head + yaml.safe_dump(
        _entity(yaml.safe_load(text)), allow_unicode=True, sort_keys=False, width=1000
    )


def _entity(settings: dict[str, Any]) -> dict[str, Any]:
    answers = {"type": "object", "title": "The service", **_form(settings)}
    repo = {
        "title": "Its repo",
        "type": "string",
        "ui:field": "RepoUrlPicker",
        "ui:options": {"allowedHosts": ["github.com"]},
    }
    return {
        "apiVersion": "scaffolder.backstage.io/v1beta3",
        "kind": "Template",
        "metadata": {
            "name": "rung",
            "title": "A backend that grows",
            "description": "FastAPI and Postgres, at one of four stages of growth.",
        },
        "spec": {
            "owner": "platform",
            "type": "service",
            "parameters": [
                _page("answers", answers),
                _page("repo", repo),
            ],
            "steps": _steps(),
        },
    }


def _page(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    return {"title": asked["title"], "required": [name], "properties": {name: asked}}


def _form(settings: dict[str, Any]) -> dict[str, Any]:
    asked = {
        name: question
        for name, question in settings.items()
        if not name.startswith("_") and question.get("when") is not False
    }
    later = {name: _stages(question, asked) for name, question in asked.items()}
    stages = list(asked["stage"]["choices"].values())
    form: dict[str, Any] = {
        "required": [name for name in ALWAYS if name in asked],
        "properties": {
            name: _property(name, question)
            for name, question in asked.items()
            if later[name] == stages
        },
    }
    if some := {name: at for name, at in later.items() if at != stages}:
        form["dependencies"] = {
            "stage": {
                "oneOf": [
                    {
                        "properties": {
                            "stage": {"enum": [stage]},
                            **{n: _property(n, asked[n]) for n, at in some.items() if stage in at},
                        }
                    }
                    for stage in stages
                ]
            }
        }
    return form


def _property(name: str, question: dict[str, Any]) -> dict[str, Any]:
    kind = TYPES.get(question.get("type", "str"), "string")
    made: dict[str, Any] = {"title": question.get("help", name), "type": kind}
    if choices := question.get("choices"):
        named = choices if isinstance(choices, dict) else dict(zip(choices, choices, strict=True))
        made |= {"enum": list(named.values()), "enumNames": list(named)}
    default = question.get("default")
    if default is not None and "{" not in str(default):
        made["default"] = default
    return made | MORE.get(name, {})


def _stages(question: dict[str, Any], asked: dict[str, Any]) -> list[int]:
    """The stages at which the question is asked."""
    when = SandboxedEnvironment().from_string(str(question.get("when", True)))
    stages = asked["stage"]["choices"].values()
    return [stage for stage in stages if when.render(stage=stage).strip() == "True"]


def _steps() -> list[dict[str, Any]]:
    place = "(parameters.repo | parseRepoUrl)"
    return [
        {
            "id": "create",
            "name": "Create an empty repo",
            "action": "github:repo:create",
            "input": {"repoUrl": "${{ parameters.repo }}"},
        },
        {
            "id": "render",
            "name": "Run rung new in a workflow of the template",
            "action": "github:actions:dispatch",
            "input": {
                "repoUrl": "github.com?owner=acme&repo=rung",
                "workflowId": "new-service.yml",
                "branchOrTagName": "main",
                "workflowInputs": {
                    "repo": f"${{{{ {place}.owner }}}}/${{{{ {place}.repo }}}}",
                    "answers": "${{ parameters.answers | dump }}",
                },
            },
        },
        {
            "id": "register",
            "name": "Register it, as soon as the workflow has pushed",
            "action": "catalog:register",
            "input": {
                "repoContentsUrl": "${{ steps.create.output.repoContentsUrl }}",
                "catalogInfoPath": "/catalog-info.yaml",
                "optional": True,
            },
        },
    ]


if __name__ == "__main__":
    main()
