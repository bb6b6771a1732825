# Rung's file: advancing to another stage may change it.
.PHONY: sessions-to-redis sessions-to-postgres

sessions-to-redis: ## Make Redis hold the login sessions of Postgres, at SESSION_STORE=write-both
	@$(WITH_SERVICES) python -m app.infra.session_backfill to-redis

sessions-to-postgres: ## The way back: make Postgres hold those of Redis, at SESSION_STORE=redis-first
	@$(WITH_SERVICES) python -m app.infra.session_backfill to-postgres
