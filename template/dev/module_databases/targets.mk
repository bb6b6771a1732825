# Rung's file: advancing to another stage may change it.
.PHONY: module-borders module-migration module-drop module-psql

LINTERS += module_databases.lint module_databases.lint_histories
SLOW_QUERIES = app.infra.module_databases.slow_queries

module-borders: ## Show what prevents the move of a module's tables to their own database: NAME=orders
	@$(RUN) python -m dev.module_databases "$(call typed,NAME)" "$(RECORD)"

module-migration: ## Write a migration for a module's own database: NAME=orders m="add a note"
	@$(WITH_SERVICES) python -m dev.module_databases.migration "$(call typed,NAME)" "$(m)"

module-drop: ## Write the migration that drops a module's old tables, after its move: NAME=orders
	@$(WITH_SERVICES) python -m dev.module_databases.dropping "$(call typed,NAME)"

module-psql: ## Open a SQL prompt on a module's own database: NAME=orders
	@$(WITH_SERVICES) python -m dev.module_databases.psql "$(call typed,NAME)"
