# Rung's file: advancing to another stage may change it.
"""A module's reads go to replicas of its own database, where these show the client's position."""

from fastapi import FastAPI

from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.module_databases import settings
from app.infra.module_databases.following import own_database
from app.infra.module_databases.replicas import settings as of_replicas
from app.infra.module_databases.replicas.positions import note_positions_of
from app.infra.replicas.routing import RoutedDatabase


def install(app: FastAPI) -> None:
    """Sets the class of modules' own databases. Call it before install() of the sessions."""
    app.state.own_database = _database
    app.state.further_module_settings = of_replicas.SETTINGS


def _database(app: FastAPI, module: str, own: DatabaseSettings) -> Database:
    """While its tables move, a module reads on the primary. A replica of the new database may be
    behind a write that came from the old one, and no position shows that."""
    replicas = of_replicas.read(module)
    is_routed = replicas.urls and replicas.reads and not settings.follows(module)
    database = (
        RoutedDatabase(own, replicas, module) if is_routed else own_database(app, module, own)
    )
    if replicas.urls:
        note_positions_of(app, module, database)
    return database
