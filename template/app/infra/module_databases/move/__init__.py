# Rung's file: advancing to another stage may change it.
"""Moves a module's tables to another Postgres. Delete this folder when the move is finished."""
