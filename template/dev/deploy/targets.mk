# Rung's file: advancing to another stage may change it.
.PHONY: deploy deploy-plan deploy-apply rollback console destroy cost
# make hands ENV, IMAGE and TO on, so no quote in them is the shell's.
DEPLOY = $(RUN) --group deploy python -m dev.deploy

deploy: ## Release this commit to AWS, or continue its release: ENV=production
	@$(DEPLOY) deploy

deploy-plan: ## Show what would change on AWS, and refuse to lose data: ENV=production [IMAGE=…]
	@$(DEPLOY) plan

deploy-apply: ## Apply the plan that the last `make deploy-plan` has shown: ENV=production
	@$(DEPLOY) apply

rollback: ## Go back to the release before, or to a revision: ENV=production [TO=41]
	@$(DEPLOY) rollback

console: ## Open a shell beside the running copies, with their settings: ENV=production
	@$(DEPLOY) console

destroy: ## Destroy an environment, after you type its name: ENV=production
	@$(DEPLOY) destroy

cost: ## Show what an environment costs a month, from its variables: ENV=production
	@$(DEPLOY) cost
