# Rung's file: advancing to another stage may change it.
.PHONY: slow-queries

SLOW_QUERIES ?= app.infra.slow_queries

slow-queries: ## Show slow statements, missing and needless indexes of the database: ARGS="--limit 20"
	@$(WITH_SERVICES) python -m $(SLOW_QUERIES) $(ARGS)
