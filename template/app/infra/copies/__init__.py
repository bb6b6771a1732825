# Rung's file: advancing to another stage may change it.
"""Stage 4: many copies behind a load balancer."""
