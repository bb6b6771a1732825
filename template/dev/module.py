# Rung's file: advancing to another stage may change it.
"""make module NAME=reviews: write a module of the business, with its table, migration and tests."""

import ast
import builtins
import keyword
import re
import sys
from pathlib import Path
from string import Template
from typing import NoReturn

from dev.programs import run_module

USAGE = "Give a lower-case plural: make module NAME=reviews (or NAME=news MODEL=NewsItem)"
MAIN = Path("app/main.py")
MIGRATIONS = Path("migrations/versions")

# Endings of English plurals, the longest first. MODEL=… is for other plurals.
ENDINGS = {"sses": "ss", "ies": "y", "xes": "x", "ss": "ss", "s": ""}

# Postgres' limit is 63, less the other words in the name of the index.
LONGEST = 48

FILES = {
    "app/$module/__init__.py": "",
    "app/$module/models.py": """\
from uuid import UUID

from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class $model(Base):
    __tablename__ = "$module"
    __table_args__ = (Index("ix_${module}_owner_id_id", "owner_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    owner_id: Mapped[UUID]
    text: Mapped[str]
""",
    "app/$module/schemas.py": """\
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, StringConstraints

from app.requests import RequestBody

# Postgres stores no NUL character.
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\\x00]*$$")]


class ${model}In(RequestBody):
    text: Text


class ${model}Out(BaseModel):
    id: UUID
    text: str
""",
    "app/$module/queries.py": '''\
from uuid import UUID

from sqlalchemy import bindparam, select

from app.$module.models import $model
from app.$module.schemas import ${model}Out
from app.infra.database import ReadSession
from app.infra.reads import Query

BY_OWNER = Query(
    select($model.id, $model.text)
    .where($model.owner_id == bindparam("owner_id"))
    .order_by($model.id.desc())
    .limit(100),
    ${model}Out,
)


async def by_owner(read: ReadSession, owner_id: UUID) -> list[${model}Out]:
    """The newest 100."""
    return await read.all(BY_OWNER, owner_id=owner_id)
''',
    "app/$module/service.py": """\
from uuid import UUID

from app.$module.models import $model
from app.$module.schemas import ${model}In
from app.infra.database import WriteSession


async def add(write: WriteSession, owner_id: UUID, new: ${model}In) -> $model:
    added = $model(owner_id=owner_id, text=new.text)
    write.add(added)
    await write.flush()
    return added
""",
    "app/$module/routes.py": """\
from fastapi import APIRouter

from app.$module import queries, service
from app.$module.schemas import ${model}In, ${model}Out
from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser

router = APIRouter(prefix="/$path", tags=["$module"])


@router.get("", summary="List mine, newest first", responses=problems(401))
async def list_$module(read: ReadSession, user: CurrentUser) -> list[${model}Out]:
    return await queries.by_owner(read, user.id)


@router.post("", status_code=201, summary="Add one", responses=problems(400, 401, 403, 413))
async def add_$one(write: WriteSession, user: CurrentUser, new: ${model}In) -> ${model}Out:
    added = await service.add(write, user.id, new)
    return ${model}Out.model_validate(added, from_attributes=True)
""",
    "tests/test_$module.py": """\
from uuid import uuid4

from fastapi import FastAPI
from httpx import AsyncClient

from app.infra.sessions import User, current_user


async def test_an_added_one_is_listed_for_its_owner_only(app: FastAPI, client: AsyncClient) -> None:
    ada, grace = User(uuid4()), User(uuid4())
    app.dependency_overrides[current_user] = lambda: ada
    added = await client.post("/$path", json={"text": "Well made."})
    assert added.status_code == 201
    assert (await client.get("/$path")).json() == [added.json()]

    app.dependency_overrides[current_user] = lambda: grace
    assert (await client.get("/$path")).json() == []


async def test_a_visitor_has_to_log_in(client: AsyncClient) -> None:
    assert (await client.get("/$path")).status_code == 401
""",
}


def main() -> None:
    module, model = names(sys.argv[1:])
    # The functions of routes name the operations of OpenAPI, so no two modules share one.
    one = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", model).lower()
    words = {"module": module, "model": model, "one": one, "path": module.replace("_", "-")}
    files = {Path(Template(name).substitute(words)): text for name, text in FILES.items()}
    if existing := [str(path) for path in files if path.exists()]:
        refuse(f"{existing[0]} exists")
    refuse_taken(module, model, one)
    run_module("dev.alembic", "upgrade", "head")  # First, because it may fail.
    text_before, migrations = MAIN.read_bytes(), set(MIGRATIONS.glob("*.py"))
    try:
        for path, text in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(Template(text).substitute(words))
        advice = register(module)
        paths = [*map(str, files), str(MAIN)]
        run_module("ruff", "check", "--quiet", "--fix", "--select", "I", *paths)
        run_module("ruff", "format", "--quiet", *paths)
        message = module.replace("_", " ")
        run_module("dev.alembic", "revision", "--autogenerate", "--message", message)
    except BaseException:  # Ctrl-C too. Half a module would stop the next try.
        MAIN.write_bytes(text_before)
        for path in {*files, *MIGRATIONS.glob(f"*_{module}.py")} - migrations:
            path.unlink(missing_ok=True)
        raise
    print(f"Wrote app/{module}/, tests/test_{module}.py and a migration.{advice}")
    print("Next: read them, then make migrate, make test")


def names(given: list[str]) -> tuple[str, str]:
    module, model = [*given, "", ""][:2]
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", module) or keyword.iskeyword(module):
        sys.exit(USAGE)
    model = model or singular(module).title().replace("_", "")
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", model) or keyword.iskeyword(model):
        sys.exit(USAGE)
    return module, model


def refuse_taken(module: str, model: str, one: str) -> None:
    """A name that other code uses would replace what that code means."""
    if len(module) > LONGEST:
        refuse(f"a name has at most {LONGEST} characters")
    if module in dir(builtins):
        refuse(f"{module} is a name of Python's")
    if Path(f"app/{module}.py").exists():
        refuse(f"app/{module}.py exists")
    if module in names_in(MAIN):
        refuse(f"{module} has another meaning in {MAIN}")
    imported = "".join(FILES[f"app/$module/{name}.py"] for name in ("models", "queries", "service"))
    if re.search(rf"\b{model}\b", imported):
        sys.exit(f"Nothing is written, because the module imports another {model}: give MODEL=…")
    files = {file: file.read_text(encoding="utf-8") for file in Path("app").rglob("*.py")}
    texts = files.values()
    path = module.replace("_", "-")
    if any(re.search(rf'"/{path}["/]', text) for text in texts):
        refuse(f"the app answers /{path} already")
    routes = [text for file, text in files.items() if file.name == "routes.py"]
    for operation in (f"list_{module}", f"add_{one}"):
        if any(f"def {operation}(" in text for text in routes):
            refuse(f"the app has an operation {operation}")
    table = f'__tablename__ = "{module}"'
    if module == "alembic_version" or any(table in text for text in texts):
        refuse(f"a table {module} exists")


def refuse(reason: str) -> NoReturn:
    sys.exit(f"Nothing is written, because {reason}. Choose another NAME.")


def names_in(file: Path) -> set[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        sys.exit(f"Nothing is written, because {file} cannot be read: {error}")
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.alias)]
    return found | {one.asname or one.name.partition(".")[0] for one in imported}


def singular(plural: str) -> str:
    for ending, replacement in ENDINGS.items():
        if plural.endswith(ending):
            return plural.removesuffix(ending) + replacement
    return plural


def register(module: str) -> str:
    """Adds the router to app/main.py. Returns advice if the loop over the routers is not there."""
    text = MAIN.read_text(encoding="utf-8")
    loop = re.search(r"for router in \(([\w,\s]*?),?\s*\):", text)
    if loop is None:
        return f" Include app.{module}.routes.router in {MAIN}: its place there was not found."
    routers = f"{loop[1]}, {module}" if loop[1] else f"{module},"
    text = text.replace(loop[0], f"for router in ({routers}):")
    first = re.search(r"^from app", text, re.MULTILINE)
    place = first.start() if first else 0
    added = f"from app.{module}.routes import router as {module}\n"
    MAIN.write_text(text[:place] + added + text[place:], encoding="utf-8")
    return ""


if __name__ == "__main__":
    main()
