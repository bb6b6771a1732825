import subprocess
from collections.abc import Iterator

from edits.corpus import Repo, edit

PYPROJECT = "pyproject.toml"


def uv(repo: Repo, *words: str) -> None:
    """`--frozen` writes pyproject.toml and asks no package index."""
    subprocess.run(
        ["uv", words[0], "--frozen", *words[1:]], cwd=repo.root, check=True, capture_output=True
    )


def dependencies(repo: Repo) -> list[str]:
    found: list[str] = repo.pyproject()["project"]["dependencies"]
    return found


def group(repo: Repo, name: str) -> list[str]:
    found: list[str] = repo.pyproject()["dependency-groups"][name]
    return found


@edit("changes")
def a_dependency_by_hand_in_its_alphabetical_place(repo: Repo) -> Iterator[None]:
    repo.insert(PYPROJECT, '    "email-validator~=2.2",\n', before='    "fastapi~=')
    yield
    assert '"asyncpg~=0.32",\n    "email-validator~=2.2",\n    "fastapi~=' in repo.read(PYPROJECT)


@edit("changes")
def a_dependency_by_hand_at_the_end_with_a_comment(repo: Repo) -> Iterator[None]:
    line = '    "tzdata>=2025.2", # Slim images have no time zones.\n'
    repo.replace(PYPROJECT, '    "zxcvbn-rs-py~=0.3",\n]', f'    "zxcvbn-rs-py~=0.3",\n{line}]')
    yield
    assert f'    "zxcvbn-rs-py~=0.3",\n{line}' in repo.read(PYPROJECT)


@edit("changes")
def a_dependency_by_uv_add(repo: Repo) -> Iterator[None]:
    uv(repo, "add", "markdown-it-py>=3")
    yield
    assert "markdown-it-py>=3" in dependencies(repo)


@edit("changes")
def a_tool_by_uv_add_dev(repo: Repo) -> Iterator[None]:
    uv(repo, "add", "--dev", "freezegun>=1.5")
    yield
    assert "freezegun>=1.5" in group(repo, "dev")


@edit("changes")
def a_group_of_its_own_by_uv_add(repo: Repo) -> Iterator[None]:
    uv(repo, "add", "--group", "docs", "markdown>=3.7")
    yield
    assert group(repo, "docs") == ["markdown>=3.7"]


@edit("changes")
def a_group_of_its_own_by_hand(repo: Repo) -> Iterator[None]:
    new = 'notebooks = ["ipykernel~=7.1"]\n'
    repo.replace(PYPROJECT, 'load = ["locust~=2.46"]\n', f'load = ["locust~=2.46"]\n{new}')
    yield
    assert f'load = ["locust~=2.46"]\n{new}' in repo.read(PYPROJECT)


@edit("changes")
def a_tool_by_hand_among_the_teams_own(repo: Repo) -> Iterator[None]:
    repo.insert(PYPROJECT, '    "polyfactory~=3.0",\n', before='    "pytest~=')
    yield
    assert '    "polyfactory~=3.0",\n    "pytest~=' in repo.read(PYPROJECT)


@edit("changes")
def a_dependency_pinned(repo: Repo) -> Iterator[None]:
    repo.replace(PYPROJECT, '"sqlalchemy[asyncio]~=2.1"', '"sqlalchemy[asyncio]~=2.1,!=2.1.3"')
    yield
    assert "sqlalchemy[asyncio]~=2.1,!=2.1.3" in dependencies(repo)


@edit("changes")
def an_index_of_the_companys_own(repo: Repo) -> Iterator[None]:
    table = '\n[[tool.uv.index]]\nname = "company"\nurl = "https://packages.example.com/simple"\n'
    repo.insert(PYPROJECT, f"{table}explicit = true\n", before="\n[tool.ruff]\n")
    yield
    assert repo.pyproject()["tool"]["uv"]["index"][0]["name"] == "company"


@edit("rewrites")
def a_tool_that_nobody_liked_removed_by_uv(repo: Repo) -> Iterator[None]:
    uv(repo, "remove", "--group", "load", "locust")
    repo.remove("tests/load/locustfile.py")
    yield
    assert group(repo, "load") == []
    assert not repo.has("tests/load")
