# Rung's file: advancing to another stage may change it.
"""Moves login sessions from Postgres to Redis. Delete this folder when the move is finished."""
