# Rung's file: advancing to another stage may change it.
"""Replicas of modules' own databases on this machine."""
