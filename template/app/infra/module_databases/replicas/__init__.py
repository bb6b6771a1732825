# Rung's file: advancing to another stage may change it.
"""Replicas of a module's own database."""
