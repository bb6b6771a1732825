# Rung's file: advancing to another stage may change it.
.PHONY: budget

LINTERS += pooling.lint
SYSTEM_PACKAGES += pgbouncer

budget: ## Do all processes' connections fit into the servers? Copies and workers: deploy/capacity.toml
	@$(RUN) python -m dev.pooling.budget
