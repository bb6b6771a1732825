"""Pages for people: each is short, renders without a change, and links to existing pages."""

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, Render
from variants import VARIANTS, variant_name

MOST_LINES = 120
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
JINJA = re.compile(r"\{\{|\{%|\{#")


def anchors(page: Path) -> set[str]:
    """As GitHub and GitLab make them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            dead.append(f"{page}: {link}")
    return dead


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_every_link_of_a_generated_repo_leads_somewhere(
    render: Render, variant: dict[str, Any]
) -> None:
    pages = list(render(variant).rglob("*.md"))

    assert [link for page in pages for link in dead_links(page)] == []


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_every_page_of_a_generated_repo_fits_on_a_few_screens(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    pages = [project / "docs" / "stage.md", *(project / "docs" / "guide").rglob("*.md")]

    lines = {page.name: len(page.read_text(encoding="utf-8").splitlines()) for page in pages}

    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_the_stage_page_leads_to_every_page_of_the_guide(
    render: Render, variant: dict[str, Any]
) -> None:
    docs = render(variant) / "docs"
    linked = (docs / "stage.md").read_text(encoding="utf-8")

    pages = [page.relative_to(docs).as_posix() for page in (docs / "guide").rglob("*.md")]

    assert [page for page in pages if page not in linked] == []


def test_the_signatures_are_those_of_the_code() -> None:
    """`self` is left out."""
    folder = REPO / "template/app/infra"
    names = ("freshness", "sessions", "stored_files")
    texts = ((folder / f"{name}.py").read_text(encoding="utf-8") for name in names)
    code = " ".join(" ".join(texts).split()).replace("(self, ", "(").replace("(self)", "()")
    page = (REPO / "template/docs/guide/signatures.md").read_text(encoding="utf-8")

    shown = re.findall(r"^((?:async )?def .*[^:\n])$", page, re.MULTILINE)

    assert len(shown) == 13
    assert [one for one in shown if f"{one}:" not in code] == []


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_no_page_of_a_generated_repo_needs_uv_on_path(
    render: Render, variant: dict[str, Any]
) -> None:
    """`make` may have fetched uv into a cache, where only dev/uv finds it."""
    pages = {page: page.read_text(encoding="utf-8") for page in render(variant).rglob("*.md")}

    named = {page.name: re.findall(r"(?<!dev/)\buv (?:run|tool) .*", pages[page]) for page in pages}

    assert {page: commands for page, commands in named.items() if commands} == {}


def test_every_link_of_this_repo_leads_somewhere() -> None:
    assert [link for page in pages_of_this_repo() for link in dead_links(page)] == []


def test_every_page_of_this_repo_renders_as_it_is() -> None:
    assert [
        page for page in pages_of_this_repo() if JINJA.search(page.read_text(encoding="utf-8"))
    ] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](#one-heading) [b](#two) [c](gone.md) [d](page.md#one)\n")

    assert dead_links(page) == [f"{page}: {link}" for link in ("#two", "gone.md", "page.md#one")]


def pages_of_this_repo() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPO / name for name in listed.stdout.splitlines() if (REPO / name).exists()]


def test_the_readme_fits_on_three_screens() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) < 100


def test_the_picture_of_the_stages_is_as_drawn() -> None:
    drawn = runpy.run_path(str(REPO / "scripts" / "pictures.py"))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["drawn"]()
    assert [stage.title[0] for stage in drawn["STAGES"]] == ["1", "2", "3", "4"]


def test_the_recording_is_small_and_shows_no_path_of_the_machine() -> None:
    text = (REPO / "docs" / "pictures" / "recording.svg").read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    for typed in ("rung new", "make dev", "rung advance", "make stack", "kill -9"):
        assert typed in text
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)
