# Rung's file: advancing to another stage may change it.
"""Stage 4, optional: the tables of one module in their own Postgres."""
