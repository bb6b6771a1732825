# Rung's file: advancing to another stage may change it.
.PHONY: lag

lag: ## Hold the replica of a running `make dev` back: make lag MS=2000, and MS=0 to let it go
	@$(RUN) python -m dev.replicas.lag "$(or $(MS),2000)"
