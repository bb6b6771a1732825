# Rung's file: advancing to another stage may change it.
"""Base: the settings that all tables share."""

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, MetaData, Text
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    # Times have a zone. Texts and integers have no limit that a team meets later.
    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger, str: Text}  # noqa: RUF012
    # Alembic can drop only constraints that have a name. These are the names that it looks for.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
