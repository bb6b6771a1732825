# Rung's file: advancing to another stage may change it.
.PHONY: files-to-s3 files-to-folder

files-to-s3: ## Copy the files of FILES_FOLDER to S3 and compare every row, at FILES_STORE=upload-to-s3
	@$(WITH_SERVICES) python -m app.infra.s3.move to-s3

files-to-folder: ## The way back: copy the files of S3 to FILES_FOLDER, at FILES_STORE=read-both
	@$(WITH_SERVICES) python -m app.infra.s3.move to-folder
