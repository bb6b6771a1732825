"""A team that deletes the whole sample and builds something else edits no file of Rung's."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from carrying import WAYS
from checking import make_check
from conftest import REPO, Render
from edits.carried import commit, conflicts
from people import git
from serving import free_port, make_dev, run
from variants import LONGEST, STEP_BY_STEP
from wall import rungs_own

BUSINESS = REPO / "tests" / "other_business"
# Its articles, once they cross no border of another module.
APART = REPO / "tests" / "other_business_apart"

# The sample: its modules, migration, tests, seed and load.
SAMPLE = (
    "app/accounts",
    "app/catalog",
    "app/orders",
    "app/uploads",
    "app/seed.py",
    "app/paging.py",
    "migrations/versions/0001_the_shop.py",
    "scripts/tour.sh",
    "tests/test_accounts.py",
    "tests/test_catalog.py",
    "tests/test_errors.py",
    "tests/test_openapi.py",
    "tests/test_orders.py",
    "tests/test_uploads.py",
)


def replace_the_sample(project: Path) -> None:
    for name in SAMPLE:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(BUSINESS, project, dirs_exist_ok=True)
    contracts = project / "pyproject.toml"
    text = contracts.read_text(encoding="utf-8")
    text = text.replace('    "app.seed",\n', "").replace('["app.main", "app.seed"]', '["app.main"]')
    joins = '    "app.articles.queries -> app.people.models",\n'
    text = text.replace("ignore_imports = [\n", f"ignore_imports = [\n{joins}")
    contracts.write_text(text, encoding="utf-8")


def team_of(render: Render, project: Path, variant: dict[str, Any]) -> dict[str, object]:
    """Writes a repo whose team has replaced the sample. Returns Rung's files as they were."""
    shutil.copytree(render(variant), project)
    before: dict[str, object] = dict(rungs_own(project))
    replace_the_sample(project)
    git("init", "--quiet", "--initial-branch=main", cwd=project)
    commit(project, "Another business")
    return before


def test_make_help_lists_the_seed_only_where_there_is_one(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(LONGEST[0]), project)
    assert "make seed " in run("make", "help", within=project).stdout
    (project / "app" / "seed.py").unlink()
    assert "make seed " not in run("make", "help", within=project).stdout


@pytest.mark.slow
def test_make_check_passes_without_the_sample(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "gazette"
    before = team_of(render, project, LONGEST[0])

    make_check(project)

    after: dict[str, object] = dict(rungs_own(project))
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
def test_another_business_climbs_the_ladder(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "gazette"
    team_of(render, project, STEP_BY_STEP[0])
    for variant in STEP_BY_STEP[1:]:
        WAYS["rung"](project, variant)
        assert conflicts(project) == []
        commit(project, "Another stage")
    make_check(project, slow_tests=False)


@pytest.mark.slow
def test_the_commands_work_without_the_sample(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "gazette"
    team_of(render, project, LONGEST[-1])

    borders = run("make", "module-borders", "NAME=articles", within=project)
    assert "app/articles/queries.py:25: QUERIES.'newest': statement of articles" in borders.stdout
    with make_dev(project, free_port()) as url:
        publish(url)
        assert titles(url) == ["Without a shop"]

    with make_dev(project, free_port(), "stack") as url:
        assert titles(url) == ["Without a shop"]
        for duration in ("2s", "60s"):
            size = (f"HOST={url}", f"DURATION={duration}", "USERS=2")
            loaded = run("make", "load", *size, within=project)
            # On a busy machine, the first request may take longer.
            if "raise DURATION" not in loaded.stderr:
                break
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
        assert "/newest" in loaded.stdout + loaded.stderr
        # The gazette stores no files: any key that its rows name will do.
        rows = "SELECT id::text AS key, NULL AS sha256 FROM articles"
        orphans = run("make", "files-orphans", f"FILES_ROWS={rows}", within=project)
        assert orphans.stdout.endswith("0 orphan(s) found\n"), orphans.stdout + orphans.stderr
        unanswered = run("make", "files-orphans", within=project)
        assert "FILES_ROWS is not set" in unanswered.stderr


@pytest.mark.slow
def test_a_module_with_its_own_database_reads_from_a_replica_of_it(
    render: Render, tmp_path: Path
) -> None:
    project = tmp_path / "gazette"
    team_of(render, project, LONGEST[-1])
    shutil.copytree(APART, project, dirs_exist_ok=True)
    borders = run("make", "module-borders", "NAME=articles", within=project)
    assert borders.stdout.startswith("Nothing to change"), borders.stdout + borders.stderr
    first = ("make", "module-migration", "NAME=articles", "m=the articles")
    migration = run(*first, within=project)
    assert migration.returncode == 0, migration.stdout + migration.stderr

    with make_dev(project, free_port()) as url:
        ada = joined(url, "ada")
        only_the_writer_sees_what_a_replica_lacks(project, url, ada, "In dev")
        looked = "--seconds 2 --evidence seen.json"
        run("make", "doctor", f"ARGS={looked}", within=project)
    seen = json.loads((project / "seen.json").read_text(encoding="utf-8"))
    [replica] = seen["readers_of"]["database of articles"]
    assert "public.articles" in [table["name"] for table in replica["tables"]]
    assert "replicas of modules" in seen["capabilities"]

    with make_dev(project, free_port(), "stack") as url:
        only_the_writer_sees_what_a_replica_lacks(
            project, url, joined(url, "grace"), "In the stack"
        )


def only_the_writer_sees_what_a_replica_lacks(
    project: Path, url: str, token: dict[str, str], title: str
) -> None:
    assert run("make", "lag", "MS=60000", within=project).returncode == 0
    ask(f"{url}/articles", {"title": title}, **token)
    assert title not in titles(url)
    assert title in titles(url, **token)
    assert run("make", "lag", "MS=0", within=project).returncode == 0


def joined(url: str, name: str) -> dict[str, str]:
    """A new person's token, as headers."""
    person = {"name": name, "password": "a password for tests"}
    ask(f"{url}/people", person)
    return {"Authorization": f"Bearer {ask(f'{url}/tokens', person)['token']}"}


def publish(url: str) -> None:
    ask(f"{url}/articles", {"title": "Without a shop"}, **joined(url, "ada"))


def titles(url: str, **headers: str) -> list[str]:
    return [article["title"] for article in ask(f"{url}/newest", None, **headers)["articles"]]


def ask(url: str, body: dict[str, str] | None = None, **headers: str) -> Any:
    content = json.dumps(body).encode() if body else None
    headers["Content-Type"] = "application/json"
    with urlopen(Request(url, content, headers), timeout=300) as answer:
        return json.load(answer)
