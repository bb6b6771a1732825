# Rung's file: advancing to another stage may change it.
.PHONY: doctor

doctor: ## Name the one bottleneck in front of you, or say "stay": ARGS="--log app.log --seconds 30"
	@$(WITH_SERVICES) python -m app.infra.doctor $(ARGS)
