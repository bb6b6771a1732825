# Rung's file: advancing to another stage may change it.
"""Rehearses the restore of a backup."""
