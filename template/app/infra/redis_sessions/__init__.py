# Rung's file: advancing to another stage may change it.
"""Stage 4: login sessions in Redis."""
