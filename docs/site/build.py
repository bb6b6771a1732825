"""Builds the documentation site from the Markdown of this repo: `make docs`.

Every page lives where its readers work with it. This script copies the pages into one tree,
turns their links, and calls Zensical. A link that leads to no page stops the build.
"""

import json
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]
LINK = re.compile(r"(\[[^\]\n]*\])\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

STAGES = [f"template/docs/stage-{number}.md" for number in (1, 2, 3, 4)]
LAST = ["docs/comparison.md", "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]

# A line of code has up to 130 characters, and the theme shows 95.
WIDER = "@media (min-width: 1400px) { .md-grid { max-width: 76rem } }\n"

# The theme's own list gives each line of code an empty link, which a keyboard must pass, and
# fetches a script for diagrams from another host. Without it a diagram is shown as its text.
EXTENSIONS = """\
[project.markdown_extensions]
toc = { permalink = true }
"pymdownx.highlight" = {}
"pymdownx.superfences" = {}
"""

SCHEMES = {"light": "default", "dark": "slate"}

type Nav = list[dict[str, str | Nav]]


def main() -> int:
    site = Path(sys.argv[1] if len(sys.argv) > 1 else "build/site").resolve()
    pages = site.parent / f"{site.name}-pages"
    shutil.rmtree(pages, ignore_errors=True)
    problems = write_pages(pages)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    config = pages.parent / f"{pages.name}.toml"
    config.write_text(_config(pages, site), encoding="utf-8")
    zensical = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--clean",
        "--config-file",
        str(config),
    ]
    return subprocess.run(zensical, cwd=pages.parent, check=False).returncode


def write_pages(folder: Path) -> list[str]:
    """Returns the problems of the links."""
    sources = _sources()
    problems = []
    for source, target in sources.items():
        turned, dead = _turned((REPO / source).read_text(encoding="utf-8"), source, sources)
        problems += [f"{source}: {link} leads to no page of the site" for link in dead]
        _write(folder / target, turned)
    (folder / "pictures").mkdir()
    for picture in (*REPO.glob("docs/**/*.svg"), *REPO.glob("template/docs/**/*.svg")):
        shutil.copy(picture, folder / "pictures")
    _write(folder / "cli.md", _cli_reference())
    _write(folder / "wider.css", WIDER)
    decisions = [target for target in sources.values() if target.startswith("decisions/")]
    listed = [f"- [{_title(folder / one)}]({Path(one).name})" for one in decisions]
    _write(folder / "decisions/index.md", "# Decisions\n\n" + "\n".join(listed) + "\n")
    return problems


def _sources() -> dict[str, str]:
    """Each page of the repo, and its place on the site."""
    pages = {"README.md": "index.md"}
    for page in sorted((REPO / "template/docs").rglob("*.md")):
        name = page.relative_to(REPO).as_posix()
        pages[name] = name.replace("template/docs", "stages")
    for page in sorted((REPO / "docs").rglob("*.md")):
        name = page.relative_to(REPO).as_posix()
        pages[name] = name.removeprefix("docs/")
    pages |= {"benchmarks/README.md": "benchmarks.md"}
    pages |= {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
    return pages


def _turned(text: str, source: str, sources: dict[str, str]) -> tuple[str, list[str]]:
    dead: list[str] = []
    here = posixpath.dirname(sources[source])

    def turn(found: re.Match[str]) -> str:
        label, link = found.groups()
        name, hash_, anchor = link.partition("#")
        if not name or re.match(r"[a-z]+:", name):
            return found[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        if there == "docs/decisions":
            target = "decisions/index.md"
        elif there.endswith(".svg") and (REPO / there).exists():
            target = f"pictures/{posixpath.basename(there)}"
        elif there in sources:
            target = sources[there]
        else:
            dead.append(link)
            return found[0]
        return f"{label}({posixpath.relpath(target, here or '.')}{hash_}{anchor})"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(turn, part) for part in parts[::2]]
    return "".join(parts), dead


def _cli_reference() -> str:
    made = subprocess.run(
        [sys.executable, "-m", "typer", "rung.cli", "utils", "docs", "--name", "rung"],
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.replace("# `rung`", "# Command line", 1)


def _config(pages: Path, site: Path) -> str:
    settings = {
        "site_name": "Rung",
        "docs_dir": pages.name,
        "site_dir": site.name,
        "use_directory_urls": True,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    features = ["content.code.copy", "navigation.indexes", "navigation.sections", "navigation.top"]
    return "\n".join(
        [
            "[project]",
            *lines,
            'extra_css = ["wider.css"]',
            f"nav = {_as_toml(_nav(pages))}",
            "[project.theme]",
            f"features = {json.dumps(features)}",
            "font = false",  # none from another host
            *map(_palette, SCHEMES.items()),
            EXTENSIONS,
        ]
    )


def _palette(scheme: tuple[str, str]) -> str:
    preferred, name = scheme
    media = f"(prefers-color-scheme: {preferred})"
    return f'[[project.theme.palette]]\nmedia = "{media}"\nscheme = "{name}"'


def _nav(pages: Path) -> Nav:
    def under(folder: str, *, besides: str = "index.md") -> Nav:
        found = sorted(path for path in (pages / folder).rglob("*.md") if path.name != besides)
        return [{_title(path): path.relative_to(pages).as_posix()} for path in found]

    stages: Nav = [{_title(pages / one): one} for one in map(_on_site, STAGES)]
    others = [
        {_title(path): path.name}
        for path in sorted(pages.glob("*.md"))
        if path.name not in {"index.md", "cli.md", *map(_on_site, LAST)}
    ]
    return [
        {"Start": "index.md"},
        {"The ladder": stages},
        {"Guide": under("stages/guide")},
        {"Runbooks": under("stages/runbooks")},
        {"Command line": "cli.md"},
        *others,
        {"Decisions": [{"All": "decisions/index.md"}, *under("decisions")]},
        *[{_title(pages / one): one} for one in map(_on_site, LAST)],
    ]


def _on_site(source: str) -> str:
    return _sources()[source]


def _as_toml(nav: Nav) -> str:
    entries = []
    for entry in nav:
        for title, to in entry.items():
            value = json.dumps(to) if isinstance(to, str) else _as_toml(to)
            entries.append(f"{{ {json.dumps(title)} = {value} }}")
    return f"[{', '.join(entries)}]"


def _title(page: Path) -> str:
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem


def _write(page: Path, text: str) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
