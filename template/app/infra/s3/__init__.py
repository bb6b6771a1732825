# Rung's file: advancing to another stage may change it.
"""Stage 4: files in S3."""
