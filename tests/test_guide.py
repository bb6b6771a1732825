"""The how-to pages of a generated repo, each followed literally."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from checking import make_check
from conftest import Render
from edits.carried import commit
from following import PageError, edit, follow, follow_commands, only, steps
from people import git
from variants import LONGEST

# In the order in which they build on each other.
PAGES = ["module", "table", "query", "setting", "outgoing-call", "background-job", "e-mail"]
REPLACE = "replace-the-sample"


def how_to(project: Path) -> Path:
    return project / "docs" / "guide" / "how-to"


def started(render: Render, project: Path, variant: dict[str, Any]) -> Path:
    shutil.copytree(render(variant), project)
    git("init", "--quiet", "--initial-branch=main", cwd=project)
    commit(project, "Start")
    return project


def test_every_page_is_followed_by_a_test(render: Render) -> None:
    pages = how_to(render(LONGEST[0])).glob("*.md")
    assert {page.stem for page in pages} == {*PAGES, REPLACE}


@pytest.mark.parametrize("page", [*PAGES, REPLACE])
def test_a_page_says_where_each_of_its_blocks_goes(render: Render, page: str) -> None:
    assert list(steps(how_to(render(LONGEST[0])) / f"{page}.md"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Add it:\n\n```diff\n+a\n```\n", "names 0 files"),
        ("In `a.py`: or in `b.py`:\n\n```diff\n+a\n```\n", "names 2 files"),
        ("In `a.py`:\n\n```python\na = 1\n```\n", "does not say what to do"),
        ("Write `a.py`:\n\n```diff\n+a\n```\n", "does not say what to do"),
        ("In `a.py`:\n\n```diff\n+a\n```\n\n```diff\n+b\n```\n", "names 0 files"),
    ],
)
def test_a_page_that_leaves_a_place_open_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(PageError, match=problem):
        list(steps(page))


def test_a_line_of_a_page_may_end_between_any_two_words(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("At the\n   end of\n`a.py`:\n\n```python\na = 1\n```\n")
    assert list(steps(page)) == [("append", "a.py", "a = 1\n")]


@pytest.mark.slow
def test_make_check_passes_after_all_pages_at_the_first_stage(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = started(render, tmp_path / "shop", LONGEST[0])
    for page in PAGES:
        follow(how_to(project) / f"{page}.md", project)
    build_an_index(project)
    # The sample's own tests pass elsewhere.
    check(project, monkeypatch, "reviews or moderation or jobs or mail or migrations or index")


@pytest.mark.slow
def test_make_check_passes_after_all_pages_without_the_sample_at_the_last_stage(
    render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = started(render, tmp_path / "shop", LONGEST[1])
    follow(how_to(project) / f"{REPLACE}.md", project)
    # `replace-the-sample` ends with the module.
    for page in PAGES[1:]:
        follow(how_to(project) / f"{page}.md", project)
    invalidate_in_a_job(project)
    check(project, monkeypatch)


def build_an_index(project: Path) -> None:
    """On a table that has rows, as a rule of table.md says."""
    models = project / "app" / "reviews" / "models.py"
    models.write_text(f'{models.read_text()}\n\nIndex("ix_votes_voter_id", Vote.voter_id)\n')
    follow_commands('make migration m="find votes"', project)
    written = 'op.create_index("ix_votes_voter_id", "votes", ["voter_id"], unique=False)'
    built = written.replace("unique=False", "postgresql_concurrently=True, if_not_exists=True")
    edit(
        only(project, "migrations/versions/*_find_votes.py"),
        f"-    {written}\n+    with op.get_context().autocommit_block():\n+        {built}\n",
    )
    follow_commands("make format", project)


IN_A_JOB = """\
import asyncio
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app import jobs
from app.reviews.models import Review, Vote
from dev.cache import valkey


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with valkey.running("cache") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        yield


async def test_a_job_removes_a_cached_answer(app: FastAPI, client: AsyncClient) -> None:
    one = uuid4()
    async with app.state.database.transaction() as write:
        write.add(Review(id=one, owner_id=one, text="Well made."))
        await write.flush()
        write.add(Vote(review_id=one, voter_id=one, is_up=True))
    votes = f"/reviews/{one}/votes"
    assert (await client.get(votes)).json() == [{"is_up": True, "votes": 1}]
    async with app.state.database.transaction() as write:
        await jobs.enqueue(write, "delete_reviews", one.bytes)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "app.worker")
    async with asyncio.timeout(60):
        while (await client.get(votes)).json():  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.1)
    worker.terminate()
    assert await worker.wait() == 0
"""


def invalidate_in_a_job(project: Path) -> None:
    deleted = "    await write.execute(delete(Review).where(Review.owner_id == owner_id))"
    service = project / "app" / "reviews" / "service.py"
    edit(service, f" {deleted}\n+    queries.votes_on.invalidate(write, owner_id)\n")
    edit(service, "+from app.reviews import queries\n from app.reviews.models import Review\n")
    (project / "tests" / "test_in_a_job.py").write_text(IN_A_JOB)


def check(project: Path, monkeypatch: pytest.MonkeyPatch, tests: str = "") -> None:
    """Without Rung's tests, which pass elsewhere and which no page touches."""
    monkeypatch.setenv("PYTEST_ADDOPTS", f"--ignore=tests/infra -m 'not slow' -k '{tests}'")
    make_check(project)


@pytest.mark.parametrize("text", ["", "one\ntwo\none\n"])
def test_an_edit_is_refused_when_its_lines_do_not_occur_exactly_once(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(PageError):
        edit(file, "-one\n+three\n")
    assert file.read_text() == text
