# Rung's file: advancing to another stage may change it.
"""The pages of `make dev`: they need no internet, and they do not hide the app's own pages."""

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import ARRAY, Column, Enum, Integer, Interval, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine, UserDefinedType
from starlette.requests import Request
from starlette_admin.fields import StringField

from app.infra.database import Base
from dev import data, ports, postgres, start_page


def developer(app: FastAPI, host: str = "127.0.0.1:8000") -> AsyncClient:
    transport = ASGITransport(start_page.WithPages(app))
    return AsyncClient(transport=transport, base_url=f"http://{host}")


async def test_the_start_page_says_what_this_stage_is_for(bare: FastAPI) -> None:
    async with developer(bare) as client:
        page = (await client.get("/")).text
    heading = start_page.STAGE.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    assert heading in page
    assert "$" not in page


async def test_the_rows_of_each_table_are_shown_and_cannot_be_changed(bare: FastAPI) -> None:
    async with developer(bare) as client:
        start = (await client.get(f"{data.PLACE}/")).text
        for mapper in Base.registry.mappers:
            assert f"{mapper.local_table.description}/list" in start
        rows = f"{data.PLACE}/login_sessions"
        page = (await client.get(f"{rows}/list")).text
        assert 'data-column="token_hash"' in page
        assert 'data-bs-theme="light"' in page
        assert "https://" not in re.sub(r"<!--.*?-->", "", page)
        for place in ("create", "edit?pk=1", "detail?pk=1"):
            assert (await client.get(f"{rows}/{place}")).status_code == 403


async def test_postgres_refuses_a_change_from_the_pages_of_the_data(services: object) -> None:
    async with data.engine().connect() as connection:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await connection.execute(text("CREATE TABLE made (id int)"))


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("evil.example", []),
        ("127.0.0.1:8000", [("X-Forwarded-For", "192.0.2.1")]),
        ("127.0.0.1:8000", [("Host", "a{b.evil.example:8000")]),
    ],
)
async def test_the_data_are_shown_only_on_localhost(
    bare: FastAPI, host: str, headers: Sequence[tuple[str, str]]
) -> None:
    async with developer(bare, host) as client:
        answer = await client.get(f"{data.PLACE}/", headers=headers)
    assert (answer.status_code, "http://127.0.0.1" in answer.text) == (403, True)


class Colour(UserDefinedType[str]):
    pass


SHOWN_AS_TEXT = {
    "unknown": Colour(),
    "interval": Interval(),
    "enum of strings": Enum("open", "done", name="state"),
    "array of arrays": ARRAY(Integer, dimensions=2),
}


@pytest.mark.parametrize("kind", SHOWN_AS_TEXT.values(), ids=SHOWN_AS_TEXT)
def test_a_column_of_a_type_that_the_library_cannot_show_is_shown_as_text(
    kind: TypeEngine[Any],
) -> None:
    field = data.AnyColumn().convert(name="it", type=kind, column=Column("it", kind))
    assert type(field) is StringField


def test_a_row_is_opened_only_if_its_key_can_be_read_from_a_link() -> None:
    class Table(DeclarativeBase):
        pass

    class Ward(Table):
        __tablename__ = "wards"
        clinic: Mapped[str] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)

    class Visit(Table):
        __tablename__ = "visits"
        ward: Mapped[UUID] = mapped_column(primary_key=True)
        at: Mapped[datetime] = mapped_column(primary_key=True)

    request = Request({"type": "http"})
    opened = [data.Rows(inspect(one)).can_view_detail(request) for one in (Ward, Visit)]
    assert opened == [True, False]


async def test_a_start_page_of_the_app_is_not_replaced(bare: FastAPI) -> None:
    bare.add_api_route("/", lambda: "ours")
    async with developer(bare) as client:
        assert (await client.get("/")).json() == "ours"


async def test_the_documentation_needs_no_internet(bare: FastAPI) -> None:
    async with developer(bare) as client:
        page = (await client.get("/docs")).text
        assets = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(assets) == 3
        for asset in assets:
            assert asset.startswith("/_dev/")
            assert (await client.get(asset)).status_code == 200


async def test_an_app_without_documentation_gets_none_in_development(services: object) -> None:
    async with developer(FastAPI(openapi_url=None)) as client:
        assert (await client.get("/docs")).status_code == 404


@pytest.mark.parametrize(("host", "is_told"), [("localhost:8000", True), ("evil.example", False)])
async def test_the_output_of_the_seed_is_shown_only_on_localhost(
    bare: FastAPI, monkeypatch: pytest.MonkeyPatch, host: str, is_told: bool
) -> None:
    monkeypatch.setattr(start_page, "seeded", lambda environment: "password <123>")
    async with developer(bare, host) as client:
        page = (await client.get("/")).text
    assert ("password &lt;123&gt;" in page) == is_told


def test_each_server_on_this_machine_is_listed_without_its_password() -> None:
    port = ports.unused()
    environment = {
        "A_URL": f"postgresql://app:secret@127.0.0.1:{port}/app",
        "B_URLS": f"postgresql://app:secret@127.0.0.1:{port}/app,postgresql://a.example:5432/b",
        "C_URL": f"http://localhost:{port}",
        "D": "http://[",
    }
    page = start_page.start_page("Shop & Co", environment, "")
    assert "Shop &amp; Co" in page
    assert "secret" not in page
    assert page.count(f"127.0.0.1:{port}</td><td>does not answer") == 2
    assert f'<a href="http://127.0.0.1:{port}">' in page
    assert "a.example" not in page


def test_a_folder_of_dev_adds_a_part_when_its_variables_are_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / start_page.PAGE.name
    page.write_text("<main>$parts</main>")
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / page.name).write_text("see $CHARTS_URL")
    monkeypatch.setattr(start_page, "PAGE", page)
    assert start_page.start_page("Shop", {}, "") == "<main></main>"
    charts = {"CHARTS_URL": "http://127.0.0.1:1/?a&b"}
    expected = "<main>see http://127.0.0.1:1/?a&amp;b</main>"
    assert start_page.start_page("Shop", charts, "") == expected


@pytest.mark.parametrize(
    ("age", "ago"),
    [(5, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (200_000, "2 days ago")],
)
def test_the_last_verdict_of_the_doctor_is_shown_with_its_age(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, age: int, ago: str
) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr(start_page, "VERDICT", tmp_path / "doctor.json")
    assert start_page.doctor(now) == start_page.NOT_YET
    start_page.VERDICT.write_text('{"at": 1}', encoding="utf-8")
    assert start_page.doctor(now) == start_page.NOT_YET

    said = {"text": "nothing is slow", "do": "stay"}
    found = {"at": (now - timedelta(seconds=age)).isoformat(), "verdict": said}
    start_page.VERDICT.write_text(json.dumps(found), encoding="utf-8")
    assert start_page.doctor(now) == f"Nothing is slow: stay ({ago})."


def test_libpq_variables_for_other_servers_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSSLMODE", "PGHOST", "PGOPTIONS", "PGSERVICEFILE"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("PGQUEUER_SCHEMA", "queue")
    postgres.forget_other_servers(os.environ)
    assert [name for name in os.environ if name.startswith("PG")] == ["PGQUEUER_SCHEMA"]

    # Our servers have no TLS, so this may stay.
    monkeypatch.setenv(*postgres.NO_TLS)
    postgres.forget_other_servers(os.environ)
    assert os.environ["PGSSLMODE"] == "disable"
