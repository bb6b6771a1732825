# Rung's file: advancing to another stage may change it.
.PHONY: traces

# On a laptop every request is traced, and its trace and counts appear at once. `make stack` samples
# as production does.
dev: export OTEL_TRACES_SAMPLER ?= parentbased_always_on
dev: export OTEL_BSP_SCHEDULE_DELAY ?= 300
dev stack: export OTEL_METRIC_EXPORT_INTERVAL ?= 2000

traces: ## Show the last requests of `make dev` as a waterfall in the browser
	@$(RUN) python -m dev.telemetry.traces
