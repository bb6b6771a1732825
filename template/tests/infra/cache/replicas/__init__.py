# Rung's file: advancing to another stage may change it.
"""The cache beside replicas."""
