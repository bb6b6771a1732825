# Rung's file: advancing to another stage may change it.
"""Stage 2, optional: a replica on this machine."""
