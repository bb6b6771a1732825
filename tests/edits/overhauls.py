import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edits.business import add_module
from edits.corpus import Repo, edit
from edits.migrations import VERSIONS, migrate

RUFF = Path(sys.executable).with_name("ruff")


def reformat(repo: Repo) -> None:
    command = [str(RUFF), "format", "--quiet", "--no-cache", "."]
    subprocess.run(command, cwd=repo.root, check=True)


@edit("overhauls")
def reformatted_with_another_line_length(repo: Repo) -> Iterator[None]:
    """everything reformatted with another line length"""
    repo.replace("pyproject.toml", "line-length = 100\n", "line-length = 79\n")
    reformat(repo)
    yield
    assert repo.pyproject()["tool"]["ruff"]["line-length"] == 79
    assert max(len(line) for line in repo.read("app/orders/queries.py").splitlines()) < 80


@edit("overhauls")
def reformatted_with_other_quotes(repo: Repo) -> Iterator[None]:
    """everything reformatted with other quotes"""
    table = "[tool.ruff.format]\nquote-style = 'single'\n\n"
    repo.insert("pyproject.toml", table, before="[tool.ruff.lint]\n")
    reformat(repo)
    yield
    assert "prefix='/products'" in repo.read("app/catalog/routes.py")


GONE = ("catalog", "orders", "uploads")

README = """\
# Zimmer

Rooms in Köln by the night. `make dev` starts it, `make check` checks it.
"""

MAIN = """\
from fastapi import FastAPI

from app import errors
from app.accounts.routes import router as accounts
from app.bookings.routes import router as bookings
from app.infra import environment, wiring
from app.settings import Settings


def create_app() -> FastAPI:
    settings = environment.read(Settings)
    app = FastAPI(
        title=settings.title,
        openapi_url="/openapi.json" if settings.docs else None,
        responses=errors.problems(422, 500, 503),
        **wiring.OPTIONS,
    )
    errors.install(app)
    wiring.install(app)
    for router in (accounts, bookings):
        app.include_router(router)
    return app
"""

LOAD = '''\
"""Guests who look for a room."""

from uuid import uuid4

from locust import FastHttpUser, between, task


class Guest(FastHttpUser):
    wait_time = between(0.1, 0.5)

    @task
    def look(self) -> None:
        self.client.get(f"/bookings/{uuid4()}", name="/bookings/{subject_id}")
'''

DROP = """\
for table in ("order_items", "uploads", "products", "orders"):
        op.drop_table(table)"""

BRING_BACK = """\
op.execute("CREATE TABLE orders (id uuid PRIMARY KEY, account_id uuid)")
    op.execute("CREATE INDEX ix_orders_account_id_id ON orders (account_id, id)")
    op.execute("CREATE TABLE products (id uuid PRIMARY KEY)")
    op.execute("CREATE TABLE uploads (id uuid PRIMARY KEY, account_id uuid, created_at date)")
    op.execute("CREATE INDEX ix_uploads_account_id_id ON uploads (account_id, id)")
    op.execute("CREATE INDEX ix_uploads_to_sweep ON uploads (created_at)")
    op.execute("CREATE TABLE order_items (order_id uuid PRIMARY KEY)")"""


@edit("overhauls")
def another_business(repo: Repo) -> Iterator[None]:
    """the sample's domain replaced by another business"""
    for module in GONE:
        repo.remove(*repo.files(f"app/{module}/*.py"), f"tests/test_{module}.py")
    repo.remove("app/seed.py")
    repo.write("README.md", README)
    repo.write("app/main.py", MAIN)
    repo.write("tests/load/locustfile.py", LOAD)
    repo.append(".squawk.toml", 'excluded_rules = ["ban-drop-table"]\n')
    repo.replace("tests/test_errors.py", '"/products"', '"/bookings"')
    repo.replace("tests/test_errors.py", '"HEAD, GET, POST"', '"POST"')
    forget_the_sample(repo)
    drop = migrate(repo, "no_more_shop", DROP, BRING_BACK)
    booking = add_module(repo, "bookings", "Booking")
    sort = [str(RUFF), "check", "--quiet", "--no-cache", "--fix", "--select=I", "app/bookings"]
    subprocess.run(sort, cwd=repo.root, check=True)
    yield
    assert repo.files("app/*/models.py") == ["app/accounts/models.py", "app/bookings/models.py"]
    assert repo.read("README.md") == README
    assert repo.read("app/main.py") == MAIN
    assert f'down_revision: str | None = "{drop}"' in repo.read(f"{VERSIONS}/{booking}.py")
    assert not repo.has("app/seed.py")


def forget_the_sample(repo: Repo) -> None:
    project = repo.read("pyproject.toml")
    for module in GONE:
        project = project.replace(f'    "app.{module}",\n', "")
        table = rf'\[\[tool\.importlinter\.contracts\]\]\nname = "[^"]*: {module}"\n.*?\n\n'
        project = re.sub(table, "", project, flags=re.DOTALL)
    project = project.replace('    "app.seed",\n', "").replace(', "app.seed"]', "]")
    repo.write("pyproject.toml", project)
    fill = repo.read("tests/test_indexes.py")
    for table in ("products", "orders", "order_items"):
        fill = re.sub(rf'    "{table}": .*\n', "", fill)
    fill = re.sub(r'    "uploads": f""".*?""",\n', "", fill, flags=re.DOTALL)
    repo.write("tests/test_indexes.py", fill)
