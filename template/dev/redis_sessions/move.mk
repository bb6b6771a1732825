# Rung's file: advancing to another stage may change it.
.PHONY: sessions-to-redis sessions-to-postgres

# At the SESSION_STORE of .env, which is what the copies run with: docs/runbooks/to-stage-4.md.
sessions-to-redis: ## Make Redis hold the login sessions of Postgres, when no copy is at postgres any more
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-redis

sessions-to-postgres: ## The way back: make Postgres hold those of Redis, when no copy is at redis any more
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-postgres
