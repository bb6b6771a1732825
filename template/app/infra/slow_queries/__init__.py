# Rung's file: advancing to another stage may change it.
"""Stage 2: which statements cost most, and which indexes are missing."""
