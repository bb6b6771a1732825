# Rung's file: advancing to another stage may change it.
"""Stage 2, optional: reads are answered by replicas of Postgres."""
