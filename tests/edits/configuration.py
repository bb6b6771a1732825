from collections.abc import Iterator

from edits.corpus import Repo, edit

PYPROJECT = "pyproject.toml"


@edit("changes")
def another_rule_of_ruff(repo: Repo) -> Iterator[None]:
    repo.replace(PYPROJECT, '"SIM", "UP", "W"]', '"SIM", "T10", "UP", "W"]')
    yield
    assert "T10" in repo.pyproject()["tool"]["ruff"]["lint"]["select"]


@edit("changes")
def a_rule_ignored_with_its_reason(repo: Repo) -> Iterator[None]:
    line = '"migrations/**" = ["E501"] # Alembic writes long lines.\n'
    repo.insert(PYPROJECT, line, before='"dev/**" = ')
    yield
    assert repo.pyproject()["tool"]["ruff"]["lint"]["per-file-ignores"]["migrations/**"] == ["E501"]


@edit("changes")
def an_override_for_mypy(repo: Repo) -> Iterator[None]:
    table = '[[tool.mypy.overrides]]\nmodule = ["stripe.*"]\nignore_missing_imports = true\n\n'
    repo.insert(PYPROJECT, table, before="[tool.importlinter]\n")
    yield
    assert repo.pyproject()["tool"]["mypy"]["overrides"][1]["module"] == ["stripe.*"]


@edit("changes")
def a_module_allowed_to_import_the_others(repo: Repo) -> Iterator[None]:
    old = 'allowed_importers = ["app.main", "app.seed"]'
    repo.replace(PYPROJECT, old, 'allowed_importers = ["app.main", "app.orders", "app.seed"]')
    yield
    contracts = repo.pyproject()["tool"]["importlinter"]["contracts"]
    assert contracts[1]["allowed_importers"] == ["app.main", "app.orders", "app.seed"]


@edit("changes")
def a_marker_and_a_warning_of_pytest(repo: Repo) -> Iterator[None]:
    repo.insert(
        PYPROJECT, 'filterwarnings = ["error", "ignore:.*legacy"]\n', before="filterwarnings"
    )
    repo.replace(PYPROJECT, 'filterwarnings = ["error"]\n', "xfail_strict = true\n")
    repo.replace(PYPROJECT, 'markers = ["slow: ', 'markers = ["paid: costs money", "slow: ')
    yield
    pytest = repo.pyproject()["tool"]["pytest"]
    assert pytest["filterwarnings"] == ["error", "ignore:.*legacy"]
    assert pytest["xfail_strict"]
    assert pytest["markers"][0] == "paid: costs money"


@edit("changes")
def a_tool_of_its_own_at_the_end_of_pyproject(repo: Repo) -> Iterator[None]:
    repo.append(PYPROJECT, '\n[tool.coverage.run]\nbranch = true\nsource = ["app"]\n')
    yield
    assert repo.read(PYPROJECT).endswith('[tool.coverage.run]\nbranch = true\nsource = ["app"]\n')


@edit("changes")
def a_version_and_authors(repo: Repo) -> Iterator[None]:
    authors = 'version = "3.14.0"\nauthors = [{ name = "Zoë Łukasiewicz" }]\n'
    repo.replace(PYPROJECT, 'version = "0.1.0"\n', authors)
    yield
    assert repo.pyproject()["project"]["authors"] == [{"name": "Zoë Łukasiewicz"}]


@edit("changes")
def a_rule_of_squawk_switched_off(repo: Repo) -> Iterator[None]:
    repo.append(".squawk.toml", 'excluded_rules = ["prefer-bigint-over-int"]\n')
    yield
    assert repo.read(".squawk.toml").endswith('excluded_rules = ["prefer-bigint-over-int"]\n')


@edit("changes")
def an_editors_settings(repo: Repo) -> Iterator[None]:
    repo.append(".editorconfig", "\n[*.{html,css}]\nindent_size = 2\n")
    repo.append(".gitattributes", "*.png binary\n")
    yield
    assert repo.read(".gitattributes").endswith("linguist-generated\n*.png binary\n")
    assert repo.read(".editorconfig").endswith("\n[*.{html,css}]\nindent_size = 2\n")
