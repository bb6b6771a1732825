# Rung's file: advancing to another stage may change it.
"""Stage 2: Postgres through a pooler in transaction mode."""
