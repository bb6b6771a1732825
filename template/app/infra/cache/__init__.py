# Rung's file: advancing to another stage may change it.
"""Stage 3: answers kept in Redis for as long as @max_stale allows."""
