# Rung's file: advancing to another stage may change it.
"""Stage 3: answers cached in Redis for as long as @max_stale allows."""
