# Rung's file: advancing to another stage may change it.
.PHONY: slow-queries

slow-queries: ## Slow statements, missing and needless indexes of the database: ARGS="--limit 20"
	@$(WITH_SERVICES) python -m app.infra.slow_queries $(ARGS)
