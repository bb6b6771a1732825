# Rung's file: advancing to another stage may change it.
.PHONY: traces

# On a laptop every request is worth its trace, and worth it now.
dev: export OTEL_TRACES_SAMPLER ?= parentbased_always_on
dev: export OTEL_BSP_SCHEDULE_DELAY ?= 300

traces: ## What the app of `make dev` has just done, as a waterfall in the browser
	@$(RUN) python -m dev.telemetry.traces
