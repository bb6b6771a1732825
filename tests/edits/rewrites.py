"""Files that a team deletes, renames or rewrites: none of the old text comes back."""

from collections.abc import Iterator

from edits.corpus import Repo, Steps, edit

TEXTS = {
    "README.md": "# Laden\n\nAlles Weitere im Wiki.  \nFragen: Jürgen.\n",
    "compose.yaml": "services:\n  app:\n    image: registry.example.com/laden:1\n",
    ".github/workflows/check.yml": "on: [push]\njobs:\n  all:\n    runs-on: ubuntu-24.04\n",
    "Dockerfile": 'FROM debian:12-slim\nCOPY . /srv\nCMD ["/srv/run"]\n',
    "Makefile": "include dev/*.mk\n\ncheck:\n\t$(RUN) python -m pytest\n",
    ".env.example": "APP_TITLE=Laden\n",
    ".gitignore": "/.venv\n/.dev\n__pycache__\n",
    ".dockerignore": ".git\n.venv\n",
    "renovate.json": '{\n  "extends": ["github>example/renovate"]\n}\n',
    "app/errors.py": "from fastapi import FastAPI\n\n\ndef install(app: FastAPI) -> None: ...\n",
    "app/orders/service.py": "async def place_order() -> None:\n    raise NotImplementedError\n",
}


def written_anew(file: str) -> Steps:
    def steps(repo: Repo) -> Iterator[None]:
        assert repo.has(file)
        repo.write(file, TEXTS[file])
        yield
        assert repo.read(file) == TEXTS[file]

    steps.__doc__ = f"{file} rewritten"
    return edit("rewrites")(steps)


readme = written_anew("README.md")
compose = written_anew("compose.yaml")
ci = written_anew(".github/workflows/check.yml")
dockerfile = written_anew("Dockerfile")
makefile = written_anew("Makefile")
env_example = written_anew(".env.example")
gitignore = written_anew(".gitignore")
dockerignore = written_anew(".dockerignore")
renovate = written_anew("renovate.json")
errors = written_anew("app/errors.py")
orders = written_anew("app/orders/service.py")


def deleted(name: str, pattern: str) -> Steps:
    def steps(repo: Repo) -> Iterator[None]:
        files = repo.files(pattern)
        assert files
        repo.remove(*files)
        yield
        assert repo.files(pattern) == []

    steps.__doc__ = name
    return edit("rewrites")(steps)


sample_tests = deleted("a sample's tests deleted", "tests/test_catalog.py")
devcontainer = deleted("the devcontainer deleted", ".devcontainer/*")
seed = deleted("app/seed.py deleted", "app/seed.py")
squawk = deleted("squawk's settings deleted", ".squawk.toml")
uploads = deleted("a sample module deleted", "app/uploads/*.py")


@edit("rewrites")
def a_sample_module_renamed(repo: Repo) -> Iterator[None]:
    for name in repo.files("app/catalog/*"):
        repo.move(name, name.replace("app/catalog", "app/products"))
    for name in (*repo.files("app/**/*.py"), "pyproject.toml"):
        repo.write(name, repo.read(name).replace("app.catalog", "app.products"))
    yield
    assert not repo.has("app/catalog")
    assert "from app.products.models import Product" in repo.read("app/products/queries.py")
    assert "from app.products.routes import router as catalog" in repo.read("app/main.py")


@edit("rewrites")
def a_file_grown_into_a_package(repo: Repo) -> Iterator[None]:
    """app/settings.py grown into app/settings/"""
    repo.move("app/settings.py", "app/settings/__init__.py")
    repo.write("app/settings/mail.py", 'SENDER = "laden@example.com"\n')
    yield
    assert not repo.has("app/settings.py")
    assert "class Settings" in repo.read("app/settings/__init__.py")


@edit("rewrites")
def a_package_shrunk_to_a_file(repo: Repo) -> Iterator[None]:
    """app/accounts/ shrunk to app/accounts.py"""
    repo.remove(*repo.files("app/accounts/*"))
    repo.write("app/accounts.py", "# One sign-in for all our services.\n")
    yield
    assert repo.read("app/accounts.py") == "# One sign-in for all our services.\n"
    assert not repo.has("app/accounts")


@edit("rewrites")
def a_file_that_became_a_link(repo: Repo) -> Iterator[None]:
    """.editorconfig moved, a link in its place"""
    text = repo.read(".editorconfig")
    repo.move(".editorconfig", "config/editorconfig")
    (repo.root / ".editorconfig").symlink_to("config/editorconfig")
    repo.append("config/editorconfig", "# ours\n")
    yield
    assert str((repo.root / ".editorconfig").readlink()) == "config/editorconfig"
    assert repo.read("config/editorconfig") == f"{text}# ours\n"


@edit("rewrites")
def a_file_emptied(repo: Repo) -> Iterator[None]:
    """app/paging.py emptied"""
    repo.write("app/paging.py", "")
    yield
    assert repo.read("app/paging.py") == ""


@edit("rewrites")
def tests_moved_beside_the_code(repo: Repo) -> Iterator[None]:
    repo.move("tests/test_orders.py", "app/orders/tests/test_orders.py")
    yield
    assert not repo.has("tests/test_orders.py")
    assert "async def test_" in repo.read("app/orders/tests/test_orders.py")


@edit("rewrites")
def the_first_migration_renamed(repo: Repo) -> Iterator[None]:
    repo.move("migrations/versions/0001_the_shop.py", "migrations/versions/20260101_start.py")
    yield
    assert repo.files("migrations/versions/*.py") == ["migrations/versions/20260101_start.py"]
