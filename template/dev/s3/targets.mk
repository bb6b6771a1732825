# Rung's file: advancing to another stage may change it.
.PHONY: files-orphans

files-orphans: ## List the files in S3 that no row of FILES_ROWS names; ARGS=--delete deletes them
	@$(WITH_SERVICES) python -m app.infra.s3.orphans $(ARGS)
