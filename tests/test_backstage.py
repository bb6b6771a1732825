"""The files that Backstage reads: the component of each repo, and the template with its form."""

import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO, Render
from growing import Repo, release
from people import git

SCHEMA = REPO / "tests" / "backstage-schema.json"
TEMPLATE = REPO / "backstage" / "template.yaml"


def component(render: Render, **answers: str) -> Path:
    return render({"project_slug": "shop", **answers}) / "catalog-info.yaml"


def refusal(file: Path) -> str:
    """Of the schemas that Backstage's npm packages hold; see the comment in the file."""
    check = ["check-jsonschema", "--schemafile", str(SCHEMA), str(file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode else ""


def test_the_form_is_made_from_the_questions() -> None:
    form = runpy.run_path(str(REPO / "backstage" / "form.py"))
    assert TEMPLATE.read_text(encoding="utf-8") == form["template"](), "uv run backstage/form.py"


def test_a_question_is_in_the_form_at_the_stages_that_ask_it() -> None:
    (service, _) = yaml.safe_load(TEMPLATE.read_text())["spec"]["parameters"]
    answers = service["properties"]["answers"]
    assert set(answers["properties"]) == {
        "project_name", "project_slug", "description", "team", "stage",
    }  # fmt: skip
    later: dict[int, Any] = {
        one["properties"]["stage"]["enum"][0]: sorted(one["properties"].keys() - {"stage"})
        for one in answers["dependencies"]["stage"]["oneOf"]
    }
    assert later == {
        1: [],
        2: ["pooler", "replica_routing"],
        3: ["pooler", "replica_routing"],
        4: ["module_databases", "pooler", "replica_routing"],
    }


def test_a_question_of_a_fork_may_leave_out_what_copier_fills_in() -> None:
    form = runpy.run_path(str(REPO / "backstage" / "form.py"))
    found = form["_property"]("region", {"choices": ["eu-west-1", "us-east-1"]})
    assert found == {
        "title": "region", "type": "string",
        "enum": ["eu-west-1", "us-east-1"], "enumNames": ["eu-west-1", "us-east-1"],
    }  # fmt: skip


def test_backstage_accepts_the_template_and_a_new_repo(render: Render) -> None:
    assert refusal(TEMPLATE) == ""
    assert refusal(component(render, team="group:default/tea")) == ""


def test_a_component_keeps_text_that_yaml_would_misread(render: Render) -> None:
    said = 'A "tea" \\ shop: #1 {{ x }} 茶 🍵'
    file = component(render, project_name=said, description=f"yes: {said}", team="null")
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert read["metadata"]["title"] == said
    assert read["metadata"]["description"] == f"yes: {said}"
    assert read["spec"]["owner"] == "null"
    assert refusal(file) == ""


def test_the_schema_refuses_a_component_without_an_owner(render: Render, tmp_path: Path) -> None:
    broken = tmp_path / "catalog-info.yaml"
    text = component(render, team="group:default/tea").read_text()
    broken.write_text(text.replace("  owner:", "  own:"))
    assert "owner" in refusal(broken)


def test_the_workflow_is_sound() -> None:
    for linter in (["actionlint"], ["zizmor", "--offline", "--quiet"]):
        subprocess.run([*linter, str(REPO / "backstage" / "new-service.yml")], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed; see SCHEMA above")
def test_the_packages_of_backstage_accept_component_and_template(
    render: Render, tmp_path: Path
) -> None:
    packages = ["@backstage/catalog-model@1.10.3", "@backstage/plugin-scaffolder-common@2.4.0"]
    install = ["npm", "install", "--no-audit", "--no-fund", *packages, "yaml"]
    done = subprocess.run(
        install, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        pytest.skip(f"npm cannot install them here: {done.stderr[-200:]}")
    (tmp_path / "check.cjs").write_text(
        """
const { componentEntityV1alpha1Validator, SchemaValidEntityPolicy, FieldFormatEntityPolicy } =
  require('@backstage/catalog-model');
const { templateEntityV1beta3Validator } = require('@backstage/plugin-scaffolder-common');
const { parse } = require('yaml');
const { readFileSync } = require('fs');
(async () => {
  const validators = [componentEntityV1alpha1Validator, templateEntityV1beta3Validator];
  for (const [n, file] of process.argv.slice(2).entries()) {
    const entity = parse(readFileSync(file, 'utf8'));
    await new SchemaValidEntityPolicy().enforce(entity);
    await new FieldFormatEntityPolicy().enforce(entity);
    if (!(await validators[n].check(entity))) throw new Error(`${file} is of another kind`);
  }
})().catch(error => { console.error(error.message); process.exit(1); });
"""
    )
    files = [component(render, team="group:default/tea"), TEMPLATE]
    node = ["node", "check.cjs", *map(str, files)]
    done = subprocess.run(
        node, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_an_update_leaves_the_component_to_the_team(repo: Repo, template: Path) -> None:
    """An older repo may be in Backstage's catalog already, by another file of this name."""
    clone = repo.person.desk.parent / "template"
    git("clone", "--quiet", str(template), str(clone), cwd=repo.person.desk)
    (clone / "template" / "catalog-info.yaml.jinja").unlink()
    release(clone, "v0.0.9")
    assert repo.person.types("new", "tea", "--defaults", "--template", clone).returncode == 0
    tea = Repo(repo.person, repo.person.desk / "tea")
    tea.write("catalog-info.yaml", "Ours.\n")
    tea.commit()
    git("revert", "--no-edit", "HEAD", cwd=clone)
    git("tag", "v0.2.0", cwd=clone)
    assert tea.rung("upgrade").returncode == 0
    assert tea.answers()["_commit"] == "v0.2.0"
    assert tea.text("catalog-info.yaml") == "Ours.\n"
