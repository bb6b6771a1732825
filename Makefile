# uv from PATH, or fetched once: the script that every generated repo ships.
UV := sh template/dev/uv

# UV_PYTHON may name the place of this Python, and no other Python.
PYTHON := 3.13
IS_PYTHON := import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(PYTHON)")
ifneq ($(filter-out $(PYTHON),$(UV_PYTHON)),)
ifeq ($(shell '$(UV_PYTHON)' -c '$(IS_PYTHON)' 2>/dev/null && echo yes),yes)
PYTHON := $(UV_PYTHON)
else
$(warning UV_PYTHON is not used: $(UV_PYTHON) is no Python $(PYTHON), or does not run)
endif
endif
new install: export UV_PYTHON = $(PYTHON)

# Only these variables of uv are kept: others could lead it to another project, Python or mode.
unexport $(filter-out UV_CACHE_DIR UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_HTTP_% UV_INDEX% \
	UV_INSECURE_HOST UV_KEYRING_PROVIDER UV_LINK_MODE UV_NATIVE_TLS UV_PYTHON_INSTALL_MIRROR UV_SYSTEM_CERTS UV_TOOL_%, \
	$(filter UV_%,$(.VARIABLES)))

# Only as typed after make: tools for deployments set a variable of this name.
STAGE =

.DEFAULT_GOAL := help
.PHONY: help new install test test-slow edits-report docs lint check

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

new: ## Create a repo: make new DEST=../shop [STAGE=1] [ARGS="--data team=tea"]
	@test -n "$(DEST)" || { echo "Say where: make new DEST=../shop" >&2; exit 2; }
	@$(UV) run --quiet --no-dev rung new "$(DEST)" $(if $(STAGE),--stage "$(STAGE)") $(ARGS)

install: ## Put rung on your PATH, for its other commands
	@$(UV) tool install --reinstall-package rung .

test: ## Run the quick tests
	$(UV) run --quiet pytest

test-slow: ## Run the slow tests: generated repos check themselves, input is hostile
	$(UV) run --quiet pytest -m slow

edits-report: ## Carry the corpus of edits over every journey and write docs/edits.md
	$(UV) run --quiet --directory tests python -m edits.report

docs: ## Build the documentation site into build/site
	$(UV) run --quiet python docs/site/build.py

lint: ## Check format, lint and types
	$(UV) run --quiet ruff format --check
	$(UV) run --quiet ruff check
	$(UV) run --quiet mypy

check: lint test ## Run this before a commit
