# Rung's file: advancing to another stage may change it.
.PHONY: stack stack-status

LINTERS += copies.lint
SYSTEM_PACKAGES += haproxy

# $$PPID is make. When make is gone, even by kill -9, the stack stops.
stack: ## Run the whole service as local processes, behind HAProxy on PORT=8000: make stack COPIES=3
	@COPIES="$(or $(COPIES),3)" STARTED_BY=$$PPID $(WITH_SERVICES) python -m dev.copies.stack

stack-status: ## Show the servers and copies of `make stack`, as a table
	@$(RUN) python -m dev.copies.stack_status
