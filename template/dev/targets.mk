# Rung's file: advancing to another stage may change it.
# dev/uv runs the uv that $UV names: its path may hold spaces, or lead nowhere.
UV := $(if $(UV),/usr/bin/env UV='$(UV)' )sh dev/uv
# PYTHONSAFEPATH would hide dev/ from `python -m dev`.
unexport UV PYTHONSAFEPATH
RUN = $(UV) run --quiet
# `exec` in a recipe: when make is killed, it ends only the process that it has started, a shell.
WITH_SERVICES = exec $(RUN) python -m dev
# Not the shell's: WSL sets NAME, and others set MODEL and HOST.
typed = $(if $(findstring command,$(origin $1)),$($1))

# `make help` lists each included file, and a team may delete its seed.
include $(wildcard dev/*/*.mk) $(if $(wildcard app/seed.py app/seed),dev/seed.make)
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),sudo)

.PHONY: system-packages dev migrate migration module client psql load

# Modules of dev/ that `make check` runs. The targets.mk of a folder adds its own, and adds the
# Debian packages that it needs to SYSTEM_PACKAGES.
LINTERS += lint_conflicts lint_migrations

system-packages: ## Install what the tests need from the system
	@$(if $(strip $(SYSTEM_PACKAGES)),command -v apt-get >/dev/null || { echo 'There is no apt-get here. Install these another way: $(strip $(SYSTEM_PACKAGES))' >&2; exit 1; }; $(AS_ROOT) apt-get update -qq && $(AS_ROOT) apt-get install -qq -y --no-install-recommends $(SYSTEM_PACKAGES))

dev: ## Migrate, seed and serve with reload (PORT=8000), on the Postgres in .dev or on DATABASE_URL
	@$(WITH_SERVICES) python -m dev.serve

migrate: ## Run the migrations that the database lacks
	@$(WITH_SERVICES) python -m dev.migrate

migration: ## Write a migration from the changes of the models: make migration m="add a note"
	@test -n "$(m)" || { echo 'Describe the migration: make migration m="add a note"' >&2; exit 2; }
	@$(WITH_SERVICES) sh -c 'python -m dev.alembic upgrade head && python -m dev.alembic revision --autogenerate -m "$$1"' sh "$(m)"
	@echo 'Read it, then: make migrate'

module: ## Write a module with its table, migration and tests: make module NAME=reviews
	@$(WITH_SERVICES) python -m dev.module "$(call typed,NAME)" $(if $(call typed,MODEL),"$(MODEL)")

client: ## Write a typed Python client of a running `make dev`: HOST=http://localhost:8000
	@HOST=$(call typed,HOST) $(RUN) python -m dev.client

psql: ## Open a SQL prompt on the database
	@$(WITH_SERVICES) python -m dev.psql

load: ## Run a load test: USERS=20 DURATION=30s, on a new process and database, or on HOST=https://…
	@USERS=$(or $(USERS),20) DURATION=$(or $(DURATION),30s) HOST=$(call typed,HOST) \
		exec $(RUN) --group load python -m dev.load
