# Rung's file: advancing to another stage may change it.
.PHONY: budget

LINTERS += pooling.lint
SYSTEM_PACKAGES += pgbouncer

budget: ## Check that all connections fit into the servers of deploy/capacity.toml, or on AWS: [ENV=production]
	@$(RUN) $(if $(ENV),--group deploy) python -m dev.pooling.budget
