# Rung's file: advancing to another stage may change it.
"""Carries a release to AWS: `make deploy`, and what belongs to it."""
