# Rung's file: advancing to another stage may change it.
# RDS Proxy stands before the common database only, so the app's own pools lead to a module's.
locals {
  module_environment = {}
  # The whole URL is the secret, because PGPASSWORD is that of the common database.
  module_secrets = {
    for module in var.module_databases_in_use :
    "MODULE_${upper(module)}_DATABASE_URL" => aws_secretsmanager_secret.module_url[module].arn
  }
}
