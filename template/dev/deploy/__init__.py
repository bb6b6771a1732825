# Rung's file: advancing to another stage may change it.
"""Deploys a release to AWS: `make deploy` and the commands beside it."""
