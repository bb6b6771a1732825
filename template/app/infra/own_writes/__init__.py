# Rung's file: advancing to another stage may change it.
"""With replicas or a cache: clients see their own writes."""
