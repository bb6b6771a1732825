"""The documentation site: every page is there, and leads to pages and headings that exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from conftest import REPO, Shared

BUILD = REPO / "docs" / "site" / "build.py"
HOST = "https://site.invalid/"
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


class Page(HTMLParser):
    """Its links, what it loads, and the ids that a link may name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids = {""}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given.get("id") or "", given.get("name") or ""}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag in LOADED and given.get(LOADED[tag]):
            self.loaded.append(str(given[LOADED[tag]]))


@pytest.fixture(scope="module")
def site(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def made() -> Path:
        built = tmp_path_factory.mktemp("site") / "site"
        done = build(built)
        assert done.returncode == 0, done.stdout + done.stderr
        return built

    return shared.made_once("site", made)


def build(site: Path, script: Path = BUILD) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), str(site)], capture_output=True, text=True, check=False
    )


def pages_of(site: Path) -> Iterator[tuple[str, Page]]:
    for file in site.rglob("*.html"):
        if file.name != "404.html":
            name = file.relative_to(site).as_posix().removesuffix("index.html")
            yield name, Page(file.read_text(encoding="utf-8"))


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    pages = dict(pages_of(site))
    dead = []
    for name, page in pages.items():
        for link in page.links:
            there = urlsplit(urljoin(HOST + name, link))
            if f"{there.scheme}://{there.netloc}/" != HOST:
                continue
            path = there.path.removeprefix("/").removesuffix("index.html")
            if path not in pages or unquote(there.fragment) not in pages[path].ids:
                dead.append(f"{name}: {link}")
    assert dead == []


def test_a_list_or_a_table_is_never_shown_as_text(site: Path) -> None:
    """The site's Markdown, unlike GitHub's, needs an empty line before each."""
    shown = {
        page: re.sub("<pre.*?</pre>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for page in site.rglob("*.html")
    }
    as_text = re.compile(r"^(?:- |1\. |\|).*", re.MULTILINE)
    assert [
        f"{page.parent.name}: {line}" for page in shown for line in as_text.findall(shown[page])
    ] == []


def test_a_block_of_code_is_only_text(site: Path) -> None:
    """The theme can make a link of each line, and fetch a diagram's script from another host."""
    pages = (page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    blocks = [block for page in pages for block in re.findall("<pre.*?</pre>", page, re.DOTALL)]
    assert blocks
    assert [block for block in blocks if "<a " in block or 'class="mermaid"' in block] == []


def test_every_picture_is_on_the_site(site: Path) -> None:
    pictures = {
        urlsplit(urljoin(HOST + name, url)).path
        for name, page in pages_of(site)
        for url in page.loaded
        if url.endswith((".svg", ".png", ".gif"))
    }
    assert any("/pictures/" in picture for picture in pictures)
    assert [picture for picture in pictures if not (site / picture[1:]).is_file()] == []


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loaded = {url for _, page in pages_of(site) for url in page.loaded}
    assert loaded
    assert [url for url in loaded if urlsplit(url).netloc] == []


def test_every_page_of_the_ladder_and_every_decision_is_on_the_site(site: Path) -> None:
    names = {name for name, _ in pages_of(site)}
    decisions = {f"decisions/{page.stem}/" for page in (REPO / "docs/decisions").glob("*.md")}
    stages = {f"stages/stage-{number}/" for number in (1, 2, 3, 4)}
    assert decisions | stages | {"", "cli/", "comparison/", "benchmarks/"} <= names


def test_the_reference_of_the_command_line_names_every_command(site: Path) -> None:
    reference = (site / "cli" / "index.html").read_text(encoding="utf-8")
    assert all(f"rung {name}" in reference for name in ("new", "advance", "upgrade", "undo"))


def test_a_dead_link_stops_the_build(tmp_path: Path) -> None:
    repo = tmp_path / "rung"
    for name in ("docs/site/build.py", "README.md", "benchmarks/README.md", "CHANGELOG.md"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_bytes((REPO / name).read_bytes())
    (repo / "CONTRIBUTING.md").write_text("# Contributing\n\n[gone](docs/gone.md)\n")
    done = build(tmp_path / "site", repo / "docs/site/build.py")
    assert done.returncode == 1
    assert "CONTRIBUTING.md: docs/gone.md leads to no page of the site" in done.stderr
    assert not (tmp_path / "site").exists()
