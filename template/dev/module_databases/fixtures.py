# Rung's file: advancing to another stage may change it.
"""Fixtures: each module that has a history has its own database in each test of the team."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from app.infra.module_databases.__main__ import tables_of
from dev import postgres, query_plans
from dev.module_databases import own
from dev.pytest_plugin import Databases, Services, migrate

pytest_plugins = ["dev.module_databases.plugin"]

WITHOUT_MODULES = postgres.REPOSITORY / "tests" / "infra"


def pytest_configure() -> None:
    """The tests have their own services: no module's variable leads to another server."""
    for name in [name for name in os.environ if own.SETTING.fullmatch(name)]:
        del os.environ[name]


@pytest.fixture(scope="session")
def module_templates(databases: Databases) -> Iterator[dict[str, str]]:
    """By module, the name of the database that `services` copies for each test."""
    with ExitStack() as stack:
        names = {}
        for module in own.with_history():
            url = stack.enter_context(migrated(databases, module))
            names[module] = urlsplit(url).path.removeprefix("/")
        yield names


@contextmanager
def migrated(databases: Databases, module: str) -> Iterator[str]:
    with databases.created() as url:
        migrate(url, **own.history(module))
        yield url


@pytest.fixture
def services(
    request: pytest.FixtureRequest,
    services: Services,
    databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Services]:
    if request.path.is_relative_to(WITHOUT_MODULES):
        yield services
        return
    templates: dict[str, str] = request.getfixturevalue("module_templates")
    with ExitStack() as stack:
        for module, template in templates.items():
            copied = databases.created(f'TEMPLATE "{template}" STRATEGY FILE_COPY')
            url = stack.enter_context(copied)
            monkeypatch.setenv(own.variable(module), url)
            for table in tables_of(module):
                monkeypatch.setitem(query_plans.ELSEWHERE, table.name, url)
        yield services
