# Rung's file: advancing to another stage may change it.
.PHONY: module-borders

LINTERS += module_databases.lint

module-borders: ## Show what stands in the way of moving a module's tables to a database: NAME=orders
	@$(RUN) python -m dev.module_databases "$(NAME)" "$(RECORD)"
