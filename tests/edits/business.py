from collections.abc import Iterator

from edits.corpus import Repo, edit
from edits.migrations import migrate

MAIN = "app/main.py"


def contract(module: str) -> str:
    """An import-linter contract, as each sample module has one."""
    return f"""\
[[tool.importlinter.contracts]]
name = "Modules meet only through each other's service and queries: {module}"
type = "protected"
protected_modules = ["app.{module}.models", "app.{module}.routes", "app.{module}.schemas"]
allowed_importers = ["app.{module}", "app.main"]

"""


@edit("changes")
def a_setting(repo: Repo) -> Iterator[None]:
    repo.append("app/settings.py", '\n    support_email: str = "hilfe@example.com"\n')
    yield
    assert '    docs: bool = True\n\n    support_email: str = "hilfe@' in repo.read(
        "app/settings.py"
    )


@edit("changes")
def a_setting_above_the_others_with_its_import(repo: Repo) -> Iterator[None]:
    settings = "app/settings.py"
    repo.insert(settings, "from pydantic import PositiveInt\n", before="from pydantic_settings")
    repo.insert(settings, "    max_basket: PositiveInt = 50\n\n", before="    title: str = ")
    yield
    assert 'env_prefix="APP_")\n\n    max_basket: PositiveInt = 50\n' in repo.read(settings)


@edit("changes")
def middleware_of_its_own(repo: Repo) -> Iterator[None]:
    module = """\
from starlette.types import ASGIApp, Receive, Scope, Send


class ApiVersion:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["api_version"] = "2026-03"
        await self.app(scope, receive, send)
"""
    repo.write("app/middleware.py", module)
    repo.insert(MAIN, "from app.middleware import ApiVersion\n", before="from app.orders.routes")
    added = "    app.add_middleware(ApiVersion)\n"
    repo.replace(MAIN, "    wiring.install(app)\n", f"    wiring.install(app)\n{added}")
    yield
    assert f"    wiring.install(app)\n{added}" in repo.read(MAIN)


@edit("changes")
def a_router_without_a_database(repo: Repo) -> Iterator[None]:
    routes = """\
from fastapi import APIRouter

router = APIRouter(prefix="/imprint", tags=["imprint"])


@router.get("", summary="Who we are")
async def imprint() -> dict[str, str]:
    return {"company": "Müller & Søn GmbH"}
"""
    repo.write("app/imprint/__init__.py", "")
    repo.write("app/imprint/routes.py", routes)
    imported = "from app.imprint.routes import router as imprint\n"
    repo.insert(MAIN, imported, before="from app.infra import")
    all_of_them = "        app.include_router(router)\n"
    repo.replace(MAIN, all_of_them, f"{all_of_them}    app.include_router(imprint)\n")
    yield
    assert f"{imported}from app.infra import environment, wiring\n" in repo.read(MAIN)
    assert "include_router(router)\n    app.include_router(imprint)\n" in repo.read(MAIN)
    assert "Müller & Søn GmbH" in repo.read("app/imprint/routes.py")


MODELS = """\
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class {model}(Base):
    __tablename__ = "{table}"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount_positive"),
        Index("ix_{table}_subject_id_id", "subject_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    subject_id: Mapped[UUID]
    amount: Mapped[int]
"""

QUERIES = """\
from uuid import UUID

from sqlalchemy import bindparam, select

from app.infra.database import ReadSession
from app.infra.freshness import max_stale
from app.infra.reads import Query
from app.{module}.models import {model}
from app.{module}.schemas import {model}Out

OF_SUBJECT = Query(
    select({model}.id, {model}.amount)
    .where({model}.subject_id == bindparam("subject_id"))
    .order_by({model}.id.desc())
    .limit(100),
    {model}Out,
)


@max_stale(minutes=5)
async def of_subject(read: ReadSession, subject_id: UUID) -> list[{model}Out]:
    return await read.all(OF_SUBJECT, subject_id=subject_id)
"""

ROUTES = """\
from uuid import UUID

from fastapi import APIRouter

from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser
from app.{module} import queries
from app.{module}.models import {model}
from app.{module}.schemas import {model}In, {model}Out

router = APIRouter(prefix="/{module}", tags=["{module}"])


@router.get("/{{subject_id}}", summary="List them, newest first")
async def show(read: ReadSession, subject_id: UUID) -> list[{model}Out]:
    return await queries.of_subject(read, subject_id)


@router.post("", status_code=201, summary="Add one", responses=problems(400, 401, 403, 413))
async def add(write: WriteSession, user: CurrentUser, new: {model}In) -> {model}Out:
    added = {model}(subject_id=new.subject_id, amount=new.amount)
    write.add(added)
    await write.flush()
    return {model}Out.model_validate(added, from_attributes=True)
"""

SCHEMAS = """\
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field


class {model}In(BaseModel):
    subject_id: UUID
    amount: Annotated[int, Field(ge=1, le=100)]


class {model}Out(BaseModel):
    id: UUID
    amount: int
"""

TESTS = """\
from uuid import uuid4

from httpx import AsyncClient


async def test_what_is_added_is_listed(ada: AsyncClient) -> None:
    subject = str(uuid4())
    added = await ada.post("/{module}", json={{"subject_id": subject, "amount": 3}})
    assert added.status_code == 201

    assert (await ada.get(f"/{module}/{{subject}}")).json() == [added.json()]
"""

UPGRADE = """\
op.create_table(
        "{table}",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount > 0", name=op.f("ck_{table}_amount_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_{table}")),
    )
    op.create_index("ix_{table}_subject_id_id", "{table}", ["subject_id", "id"], unique=False)"""


def add_module(repo: Repo, module: str, model: str) -> str:
    """Adds a module with table, migration, contract and tests. Returns the migration's revision."""
    names = {"module": module, "table": module, "model": model}
    written = {
        "models.py": MODELS,
        "schemas.py": SCHEMAS,
        "queries.py": QUERIES,
        "routes.py": ROUTES,
    }
    repo.write(f"app/{module}/__init__.py", "")
    for name, text in written.items():
        repo.write(f"app/{module}/{name}", text.format(**names))
    repo.write(f"tests/test_{module}.py", TESTS.format(**names))
    revision = migrate(
        repo,
        f"{module}_table",
        UPGRADE.format(**names),
        f'op.drop_index("ix_{module}_subject_id_id", table_name="{module}")\n'
        f'    op.drop_table("{module}")',
    )
    imports = "import sqlalchemy as sa\nfrom alembic import op\n"
    repo.replace(f"migrations/versions/{revision}.py", "from alembic import op\n", imports)
    rows = "SELECT uuidv4(), n % 5 + 1 FROM generate_series(1, 20000) n"
    fill = f'    "{module}": "(subject_id, amount) {rows}",\n'
    repo.insert("tests/test_indexes.py", fill, before="}\n\n# Values by SQL type")
    repo.insert("pyproject.toml", contract(module), before="[tool.pytest]\n")
    return revision


@edit("changes")
def a_module_with_model_migration_contract_and_tests(repo: Repo) -> Iterator[None]:
    revision = add_module(repo, "reviews", "Review")
    imported = "from app.reviews.routes import router as reviews\n"
    repo.insert(MAIN, imported, before="from app.settings import Settings\n")
    old, new = "orders, uploads):", "orders, reviews, uploads):"
    repo.replace(MAIN, old, new)
    yield
    assert f"{imported}from app.settings import Settings\n" in repo.read(MAIN)
    assert f"for router in (catalog, accounts, {new}" in repo.read(MAIN)
    assert repo.has(f"migrations/versions/{revision}.py")
    contracts = repo.pyproject()["tool"]["importlinter"]["contracts"]
    assert contracts[-1]["allowed_importers"] == ["app.reviews", "app.main"]


@edit("changes")
def a_column_on_a_sample_model_with_its_migration(repo: Repo) -> Iterator[None]:
    models = "app/catalog/models.py"
    column = "    weight_grams: Mapped[int | None]\n"
    repo.append(models, column)
    new = migrate(
        repo,
        "weight_of_products",
        'op.add_column("products", sa.Column("weight_grams", sa.BigInteger(), nullable=True))',
        'op.drop_column("products", "weight_grams")',
    )
    imports = "import sqlalchemy as sa\nfrom alembic import op\n"
    repo.replace(f"migrations/versions/{new}.py", "from alembic import op\n", imports)
    yield
    assert repo.read(models).endswith(f"    stock: Mapped[int]\n{column}")


@edit("changes")
def an_error_of_its_own(repo: Repo) -> Iterator[None]:
    error = 'class Gone(AppError):\n    """No longer here"""\n\n    status = 410\n\n\n'
    repo.insert("app/errors.py", error, before="class InvalidField(BaseModel):\n")
    yield
    assert f"    status = 422\n\n\n{error}class InvalidField" in repo.read("app/errors.py")


@edit("changes")
def a_function_moved_to_a_file_of_its_own(repo: Repo) -> Iterator[None]:
    service = "app/uploads/service.py"
    start = "def _is_image("
    text = repo.read(service)
    function = text[text.index(start) : text.index("async def _own_upload(")]
    repo.replace(service, function, "")
    signatures = text[text.index("SIGNATURES = {") : text.index("class NoSuchUpload")]
    repo.replace(service, signatures, "\n")
    repo.replace(service, "not _is_image(", "not is_image(")
    imported = "from app.uploads.images import is_image\n"
    repo.insert(service, imported, before="from app.uploads.models")
    moved = f"{signatures}{function.replace(start, 'def is_image(')}".rstrip()
    repo.write("app/uploads/images.py", f"{moved}\n")
    yield
    assert imported in repo.read(service)
    assert "_is_image" not in repo.read(service)
    assert "def is_image(content_type: str" in repo.read("app/uploads/images.py")


@edit("changes")
def a_helper_moved_from_one_module_to_another(repo: Repo) -> Iterator[None]:
    routes, network = "app/accounts/routes.py", "app/accounts/network.py"
    text = repo.read(routes)
    function = text[text.index("def client_address(") : text.index("Address = Annotated")]
    repo.replace(routes, function, "")
    imported = "from app.accounts.network import client_address\n"
    repo.insert(routes, imported, before="from app.accounts.schemas import")
    repo.replace(routes, "import APIRouter, Depends, Request\n", "import APIRouter, Depends\n")
    imports = "from fastapi import Request\n\nfrom app.accounts import throttle\n"
    repo.write(network, f"{imports}\n\n{function.rstrip()}\n")
    yield
    assert imported in repo.read(routes)
    assert "def client_address" not in repo.read(routes)
    assert "def client_address(request: Request) -> str:" in repo.read(network)


@edit("changes")
def a_longer_page_and_more_of_it(repo: Repo) -> Iterator[None]:
    repo.replace("app/paging.py", "Query(ge=1, le=100)", "Query(ge=1, le=250)")
    repo.replace("tests/test_catalog.py", '[0, 101, "many"]', '[0, 251, "many"]')
    yield
    assert "Limit = Annotated[int, Query(ge=1, le=250)]" in repo.read("app/paging.py")


@edit("changes")
def a_query_marked_as_allowed_to_be_stale(repo: Repo) -> Iterator[None]:
    queries = "app/orders/queries.py"
    repo.insert(queries, "@max_stale(minutes=1)\n", before="async def order_page(")
    imported = "from app.infra.freshness import max_stale\n"
    repo.insert(queries, imported, before="from app.infra.reads import Query\n")
    yield
    assert "\n\n@max_stale(minutes=1)\nasync def order_page(" in repo.read(queries)


@edit("changes")
def other_products_to_begin_with(repo: Repo) -> Iterator[None]:
    line = '    ("Kjøttkaker på boks", "Æ, ø og å — „lekkert“ 🥫", 990, 5),\n'
    repo.insert("app/seed.py", line, before='    ("Bread knife"')
    yield
    assert f'that lie flat.", 1450, 300),\n{line}    ("Bread knife"' in repo.read("app/seed.py")


@edit("changes")
def a_fixture_and_a_test_beside_the_samples(repo: Repo) -> Iterator[None]:
    fixture = """\
@pytest.fixture
async def alan(log_in: LogIn) -> AsyncClient:
    return await log_in("alan")


"""
    repo.insert("tests/conftest.py", fixture, before="@pytest.fixture\nasync def staff(")
    test = """

async def test_alan_has_an_account_too(alan: AsyncClient) -> None:
    assert (await alan.get("/me")).json()["email"] == "alan@example.com"
"""
    repo.append("tests/test_accounts.py", test)
    yield
    assert f'"grace")\n\n\n{fixture}@pytest.fixture\nasync def staff(' in (
        repo.read("tests/conftest.py")
    )
    assert repo.read("tests/test_accounts.py").endswith(test)
