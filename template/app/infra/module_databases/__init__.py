# Rung's file: advancing to another stage may change it.
"""Stage 4, optional: the tables of one module in their own Postgres."""

import sys

# Alembic imports the app for its models. The app itself does not load Alembic, so a script that
# imports the app before Alembic imports `comparison` itself.
if "alembic" in sys.modules:
    from app.infra.module_databases import comparison as comparison
