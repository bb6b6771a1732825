# Rung's file: advancing to another stage may change it.
.PHONY: restore-rehearsal

restore-rehearsal: ## Restore the newest backup into a temporary Postgres and check it: BACKUP=s3://bucket/folder [UNTIL=…] [KEEP=yes]
	@BACKUP="$(BACKUP)" UNTIL="$(UNTIL)" KEEP="$(call typed,KEEP)" $(RUN) python -m dev.backup.rehearsal
