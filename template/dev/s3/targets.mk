# Rung's file: advancing to another stage may change it.
.PHONY: files-to-s3 files-to-folder files-orphans

# What the business has written down: every file's key, and its sha256 unless it may be missing.
FILES_ROWS ?= SELECT key, CASE WHEN deleted_at IS NULL THEN sha256 END AS sha256 FROM uploads

files-to-s3: ## Copy the files of FILES_FOLDER to S3 and compare every row, at FILES_STORE=upload-to-s3
	@$(WITH_SERVICES) python -m app.infra.s3.move to-s3 --rows "$(FILES_ROWS)"

files-to-folder: ## The way back: copy the files of S3 to FILES_FOLDER, at FILES_STORE=read-both
	@$(WITH_SERVICES) python -m app.infra.s3.move to-folder --rows "$(FILES_ROWS)"

files-orphans: ## List what lies in S3 and no row knows; ARGS=--delete deletes it
	@$(WITH_SERVICES) python -m app.infra.s3.orphans --rows "$(FILES_ROWS)" $(ARGS)
