"""`make module` writes a module that passes `make check` as it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checking import make_check
from conftest import Render
from edits.carried import commit
from people import git
from serving import run


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    git("init", "--quiet", cwd=tmp_path / "shop")
    commit(tmp_path / "shop", "Start")
    return tmp_path / "shop"


@pytest.mark.slow
def test_two_new_modules_pass_make_check(project: Path) -> None:
    main = project / "app/main.py"
    routers = "(catalog, accounts, orders, uploads)"
    # As ruff formats a longer list.
    longer = "(\n        catalog,\n        accounts,\n        orders,\n        uploads,\n    )"
    main.write_text(main.read_text().replace(routers, longer), encoding="utf-8")
    assert longer in main.read_text()
    done = run("make", "module", "NAME=price_lists", within=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "class PriceList(" in (project / "app/price_lists/models.py").read_text()
    another = run("make", "module", "NAME=news", "MODEL=NewsItem", within=project)
    assert another.returncode == 0, another.stdout + another.stderr
    assert "async def add_news_item(" in (project / "app/news/routes.py").read_text()
    body = project / "app/news/schemas.py"
    assert "class NewsItemIn(RequestBody):\n    text: Text\n" in body.read_text()
    with_default = body.read_text().replace(
        "text: Text\n", "text: Text\n    tags: list[str] = []\n", 1
    )
    body.write_text(with_default, encoding="utf-8")
    make_check(project, slow_tests=False, tests="--ignore=tests/infra")

    again = run("make", "module", "NAME=price_lists", within=project)
    assert again.returncode != 0
    assert "Nothing is written, because app/price_lists/__init__.py exists." in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "Reviews", "class", "../reviews", "re views", "9lives"])
def test_a_name_that_is_no_module_is_refused(project: Path, name: str) -> None:
    done = run("make", "module", f"NAME={name}", within=project)
    assert done.returncode != 0
    assert "Give a lower-case plural: make module NAME=reviews" in done.stderr
    assert "Traceback" not in done.stderr
    assert git("status", "--porcelain", "app", "tests", "migrations", cwd=project) == ""


@pytest.mark.slow
def test_a_name_with_another_meaning_is_refused(project: Path) -> None:
    (project / "app/seen").mkdir()
    (project / "app/seen/models.py").write_text('__tablename__ = "visits"\n', encoding="utf-8")
    before = git("status", "--porcelain", "--untracked-files=all", cwd=project)
    for name, said in {
        "main": "app/main.py exists",
        "errors": "tests/test_errors.py exists",
        "app": "app has another meaning in app/main.py",
        "router": "router has another meaning in app/main.py",
        "wiring": "wiring has another meaning in app/main.py",
        "list": "list is a name of Python's",
        "visits": "a table visits exists",
        "login_sessions": "a table login_sessions exists",
        "alembic_version": "a table alembic_version exists",
        "queries": "the module imports another Query: give MODEL=",
        "settings": "app/settings.py exists",
        "docs": "the app answers /docs already",
        "files": "the app answers /files already",
        "sessions": "the app has an operation list_sessions",
        "tokens": "the app answers /tokens already",
        "a" * 49: "a name has at most 48 characters",
        "bases": "the module imports another Base: give MODEL=",
    }.items():
        done = run(sys.executable, "-m", "dev.module", name, within=project)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Nothing is written, because ")
        assert said in done.stderr
    for model in ("news", "News Item", "func", "None", "Größe"):
        done = run(sys.executable, "-m", "dev.module", "news", model, within=project)
        assert "Give a lower-case plural" in done.stderr
    (project / "app/main.py").write_bytes(b"\xff")
    done = run(sys.executable, "-m", "dev.module", "reviews", within=project)
    assert "app/main.py cannot be read" in done.stderr
    git("restore", "app/main.py", cwd=project)
    assert git("status", "--porcelain", "--untracked-files=all", cwd=project) == before


STOPS = {
    "it fails": ("migrations/script.py.mako", "${message}", "${1 / 0}"),
    "ctrl-c": (
        "pyproject.toml",
        'executable = "ruff"\noptions = "format ',
        'executable = "sh"\noptions = "-c \'kill -INT 0; sleep 9\' ',
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("file", "old", "new"), STOPS.values(), ids=STOPS)
def test_a_module_that_is_not_finished_leaves_no_file(
    project: Path, file: str, old: str, new: str
) -> None:
    (project / "app/reviews").mkdir()
    (project / "app/reviews/ours.md").write_text("ours\n", encoding="utf-8")
    written = (project / file).read_text(encoding="utf-8")
    assert old in written
    (project / file).write_text(written.replace(old, new, 1), encoding="utf-8")
    status = ("status", "--porcelain", "--untracked-files=all", "app", "tests", "migrations")
    before = git(*status, cwd=project)
    command = ("make", "module", "NAME=reviews")
    # In a new session, because Ctrl-C reaches each process of its group.
    stopped = subprocess.run(
        command, cwd=project, capture_output=True, timeout=300, check=False, start_new_session=True
    )
    assert stopped.returncode != 0
    assert git(*status, cwd=project) == before

    (project / file).write_text(written, encoding="utf-8")
    again = run(*command, within=project)
    assert again.returncode == 0, again.stdout + again.stderr
    [migration] = project.glob("migrations/versions/*_reviews.py")
    assert 'op.create_table(\n        "reviews"' in migration.read_text(encoding="utf-8")


@pytest.mark.slow
def test_make_format_breaks_lines_that_are_too_long(project: Path) -> None:
    service = project / "app/catalog/service.py"
    service.write_text("import os\n\nNAMES = {" + '"a": 1, ' * 20 + "}\n", encoding="utf-8")

    done = run("make", "format", within=project)

    assert service.read_text(encoding="utf-8").startswith('NAMES = {\n    "a": 1,\n')
    assert "E501" not in done.stdout
