# Rung's file: advancing to another stage may change it.
# RDS Proxy serves the common database only, so the app's own pools lead to a module's.
locals {
  module_environment = {}
  # The whole URL is the secret, because PGPASSWORD is that of the common database.
  module_secrets = merge({
    for module in var.module_databases_in_use :
    "MODULE_${upper(module)}_DATABASE_URL" => aws_secretsmanager_secret.module_url[module].arn
    }, {
    for module in setintersection(keys(local.module_replica_hosts), var.module_databases_in_use) :
    "MODULE_${upper(module)}_DATABASE_REPLICA_URLS" => aws_secretsmanager_secret.module_replica_urls[module].arn
  })
}

resource "aws_secretsmanager_secret" "module_replica_urls" {
  for_each    = local.module_replica_hosts
  name_prefix = "${local.id}-replicas-${each.key}-"
  description = "The URLs of the replicas of the Postgres of ${each.key}, with its password"
}

resource "aws_secretsmanager_secret_version" "module_replica_urls" {
  for_each  = local.module_replica_hosts
  secret_id = aws_secretsmanager_secret.module_replica_urls[each.key].id
  secret_string_wo = join(",", [
    for host in each.value :
    "postgresql://app:${ephemeral.aws_secretsmanager_secret_version.module[each.key].secret_string}@${host}:5432/${each.key}"
  ])
  secret_string_wo_version = 100 * var.module_database.password_version + length(each.value)
}
