"""Files that the template does not have, at names that many teams choose."""

from collections.abc import Iterator

from edits.corpus import Repo, Steps, edit

SCRIPT = "#!/bin/sh\nset -eu\necho 'Sicherung läuft …'\n"
PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000100000000")


def module(words: str) -> str:
    return f'"""{words}"""\n\nOURS = True\n'


def added(name: str, *files: str) -> Steps:
    def steps(repo: Repo) -> Iterator[None]:
        written = {}
        for file in files:
            assert not repo.has(file), f"{file} is the template's"
            words = f"Ours: {file}"
            written[file] = module(words) if file.endswith(".py") else f"# {words}\n"
            repo.write(file, written[file])
        yield
        assert {file: repo.read(file) for file in files} == written

    steps.__doc__ = name
    return edit("adds")(steps)


a_cache_in_the_app = added("app/cache.py and its tests", "app/cache.py", "tests/test_cache.py")
a_client_of_redis = added("app/redis.py, app/s3.py", "app/redis.py", "app/s3.py")
telemetry = added(
    "app/telemetry.py, app/metrics.py, app/tracing.py",
    "app/telemetry.py",
    "app/metrics.py",
    "app/tracing.py",
)
infrastructure = added(
    "app/infrastructure/, beside app/infra/",
    "app/infrastructure/__init__.py",
    "app/infrastructure/cache.py",
    "app/infrastructure/storage.py",
)
near_names = added(
    "app/infra_cache.py, app/sessions.py, app/files.py, app/replicas.py",
    "app/infra_cache.py",
    "app/sessions.py",
    "app/files.py",
    "app/replicas.py",
)
tests_near_rungs = added(
    "tests/infrastructure/, tests/integration/",
    "tests/infrastructure/__init__.py",
    "tests/infrastructure/test_nothing_yet.py",
    "tests/integration/__init__.py",
    "tests/integration/conftest.py",
)
another_deploy = added(
    "deploy-prod/, deployment/, terraform/, k8s/, helm/",
    "deploy-prod/compose.yaml",
    "deployment/notes.md",
    "terraform/main.tf",
    "k8s/app.yaml",
    "helm/values.yaml",
)
another_dev = added(
    "dev-notes.md, devtools/, develop.mk", "dev-notes.md", "devtools/lag.py", "develop.mk"
)
documents = added(
    "docs/runbooks.md, docs/stages.md, docs/adr/, docs/runbook/",
    "docs/runbooks.md",
    "docs/stages.md",
    "docs/adr/0001-we-chose-postgres.md",
    "docs/runbook/restore.md",
    "docs/index.md",
)
fly = added("Caddyfile, fly.toml", "Caddyfile", "fly.toml")
servers_settings = added(
    "redis.conf, haproxy.cfg, pgbouncer.ini, otel.yaml, postgres.conf",
    "redis.conf",
    "haproxy.cfg",
    "pgbouncer.ini",
    "otel.yaml",
    "postgres.conf",
)
more_compose = added(
    "compose.override.yaml, compose.prod.yaml, compose.redis.yaml",
    "compose.override.yaml",
    "compose.prod.yaml",
    "compose.redis.yaml",
)
workflows = added(
    "workflows for deployment, release and stages",
    ".github/workflows/deploy.yml",
    ".github/workflows/release.yml",
    ".github/workflows/stage.yml",
    ".github/dependabot.yml",
)
people_of_the_repo = added(
    "CODEOWNERS, a template for pull requests, CONTRIBUTING, CHANGELOG, LICENSE",
    ".github/CODEOWNERS",
    ".github/pull_request_template.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
)
hooks = added("pre-commit's configuration", ".pre-commit-config.yaml", ".gitlab-ci.yml")
editors = added("an editor's and an agent's folder", ".vscode/launch.json", ".cursorrules")


@edit("adds")
def scripts_that_can_be_run(repo: Repo) -> Iterator[None]:
    """scripts/ and bin/, executable, one without an ending"""
    for name in ("scripts/backup.sh", "bin/deploy"):
        repo.write(name, SCRIPT)
        (repo.root / name).chmod(0o755)
    yield
    for name in ("scripts/backup.sh", "bin/deploy"):
        assert repo.read(name) == SCRIPT
        assert (repo.root / name).stat().st_mode & 0o111 == 0o111


@edit("adds")
def links(repo: Repo) -> Iterator[None]:
    """links to a file, to a folder, to a file of Rung's and to nowhere"""
    targets = {
        "CLAUDE.md": "README.md",
        "docs/migrations": "../migrations",
        "stage.md": "docs/stage.md",
        "data": "/srv/not-on-this-machine",
    }
    (repo.root / "docs").mkdir(exist_ok=True)
    for name, target in targets.items():
        (repo.root / name).symlink_to(target)
    yield
    assert {name: str((repo.root / name).readlink()) for name in targets} == targets


@edit("adds")
def names_that_are_hard(repo: Repo) -> Iterator[None]:
    """names with spaces, umlauts, quotes and brackets"""
    names = (
        "docs/Übergabe an Jürgen.md",
        'docs/a "quoted" name.txt',
        "docs/店.md",
        "docs/[draft] {{ idea }}.md",
        "docs/-dash.md",
        "docs/back\\slash.md",
    )
    for name in names:
        repo.write(name, f"{name}\n")
    yield
    assert [repo.read(name) for name in names] == [f"{name}\n" for name in names]


@edit("adds")
def files_that_are_no_text(repo: Repo) -> Iterator[None]:
    """an image, a table in Latin-1, an empty file, a file with conflict-like lines"""
    written = {
        "docs/logo.png": PIXEL,
        "tests/data/kunden.csv": "Müller;Köln\n".encode("latin-1"),
        "tests/data/empty.json": b"",
        "docs/headings.rst": b"Title\n=======\n\ntext\n",
    }
    for name, data in written.items():
        (repo.root / name).parent.mkdir(parents=True, exist_ok=True)
        (repo.root / name).write_bytes(data)
    yield
    assert {name: (repo.root / name).read_bytes() for name in written} == written


@edit("adds")
def braces_and_the_look_of_templates(repo: Repo) -> Iterator[None]:
    """Jinja of the team's own, and a copier.yml of a template that it keeps"""
    written = {
        "app/mails/welcome.html.jinja": "{% if user %}Hi {{ user.name }}{% endif %}\n",
        "templates/service/copier.yml": "name:\n  type: str\n",
    }
    for name, text in written.items():
        repo.write(name, text)
    yield
    assert {name: repo.read(name) for name in written} == written
