# Rung's file: advancing to another stage may change it.
.PHONY: sessions-to-redis sessions-to-postgres

# Uses the SESSION_STORE of .env, with which the copies run: docs/runbooks/to-stage-4.md.
sessions-to-redis: ## Copy the login sessions of Postgres to Redis, when no copy is at the step postgres any more
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-redis

sessions-to-postgres: ## The way back: copy those of Redis to Postgres, when no copy is at the step redis any more
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-postgres
