# Rung's file: advancing to another stage may change it.
.PHONY: lag

lag: ## Delay the replica of a running `make dev`: make lag MS=2000. MS=0 ends the delay
	@$(RUN) python -m dev.replicas.lag "$(or $(MS),2000)"
