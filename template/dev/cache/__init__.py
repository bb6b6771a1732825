# Rung's file: advancing to another stage may change it.
"""Redis servers for development and tests."""
