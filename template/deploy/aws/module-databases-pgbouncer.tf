# Rung's file: advancing to another stage may change it.
# PgBouncer serves each module's Postgres too. The app signs in to PgBouncer with PGPASSWORD, and PgBouncer to that Postgres
# with the module's password.
locals {
  module_environment = merge(local.module_replica_urls, [
    for module in var.module_databases_in_use : {
      "MODULE_${upper(module)}_DATABASE_POOLED"          = "true"
      "MODULE_${upper(module)}_DATABASE_URL"             = "${local.pgbouncer_url}/${module}-app"
      "MODULE_${upper(module)}_DATABASE_READ_URL"        = "${local.pgbouncer_url}/${module}-app_read"
      "MODULE_${upper(module)}_DATABASE_STATEMENT_CACHE" = "100"
    }
  ]...)
  # Each replica has its own name, because the app asks each one for its WAL position.
  module_replica_urls = {
    for module, hosts in local.module_replica_hosts : "MODULE_${upper(module)}_DATABASE_REPLICA_URLS" =>
    join(",", [for i, _ in hosts : "${local.pgbouncer_url}/${module}-app_replica_${i + 1}"])
    if contains(var.module_databases_in_use, module)
  }
  # For migrations. The whole URL is the secret, because PGPASSWORD is that of the common database.
  module_secrets = {
    for module in var.module_databases_in_use :
    "MODULE_${upper(module)}_DATABASE_DIRECT_URL" => aws_secretsmanager_secret.module_url[module].arn
  }
  # The names of deploy/pgbouncer.ini again. PgBouncer's container puts the password in: pgbouncer.tf.
  # The comment is there because another password needs another revision of its task.
  module_pgbouncer_lines = flatten([
    for module in var.module_databases : ["; password_version = ${var.module_database.password_version}", [
      for server in concat(
        [{ host = aws_db_instance.module[module].address, replaces = "postgres", number = "" }],
        [for i, host in lookup(local.module_replica_hosts, module, []) : { host = host, replaces = "replica", number = "_${i + 1}" }]
        ) : [
        for line in split("\n", file("${path.module}/../pgbouncer.ini")) : replace(
          line,
          "/^(app\\w*) = host=\\w+ port=5432 dbname=app /",
          "${module}-$${1}${server.number} = host=${server.host} port=5432 dbname=${module} user=app password=@PASSWORD_${upper(module)}@ "
        ) if can(regex("^app\\w* = host=${server.replaces} ", line))
      ]
    ]]
  ])
  module_pgbouncer_secrets = {
    for module in var.module_databases :
    "PASSWORD_${upper(module)}" => aws_secretsmanager_secret.module[module].arn
  }
}

resource "aws_vpc_security_group_ingress_rule" "module_from_pgbouncer" {
  for_each                     = var.module_databases
  description                  = "The pooler"
  security_group_id            = aws_security_group.module[each.key].id
  referenced_security_group_id = aws_security_group.pgbouncer.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}
