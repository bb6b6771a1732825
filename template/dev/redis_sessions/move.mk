# Rung's file: advancing to another stage may change it.
.PHONY: sessions-to-redis sessions-to-postgres

# Uses the SESSION_STORE of .env, with which the copies run: docs/runbooks/redis_sessions/move-the-sessions.md.
sessions-to-redis: ## Copy the login sessions of Postgres to Redis, once no copy runs with SESSION_STORE=postgres
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-redis

sessions-to-postgres: ## The way back: copy the sessions of Redis to Postgres, once no copy runs with SESSION_STORE=redis
	@$(WITH_SERVICES) python -m app.infra.redis_sessions.move to-postgres
