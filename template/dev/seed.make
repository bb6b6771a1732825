# Rung's file: advancing to another stage may change it.
.PHONY: seed

seed: ## Fill an empty database with sample data
	@$(WITH_SERVICES) python -m app.seed
