# Rung's file: advancing to another stage may change it.
variable "rds_proxy" {
  description = "Each of the two proxies may open this share of Postgres' max_connections (`make budget`)"
  type = object({
    connections_percent = optional(number, 40)
  })
  default = {}
}

locals {
  pooler_environment = {
    DATABASE_POOLED          = "true"
    DATABASE_URL             = "postgresql://app@${aws_db_proxy.main["app"].endpoint}:5432/app"
    DATABASE_READ_URL        = "postgresql://app@${aws_db_proxy.main["app_read"].endpoint}:5432/app"
    DATABASE_DIRECT_URL      = local.database_url
    DATABASE_STATEMENT_CACHE = "0" # A named statement pins its session to one connection.
  }
  # A proxy takes the primary only, so the app's own pools lead to the replicas.
  pooler_replica_urls = [for host in local.replica_hosts : "postgresql://app@${host}:5432/app"]

  # A proxy has one initialization query, so each database of deploy/pgbouncer.ini has its own proxy.
  rds_proxies = {
    for alias in ["app", "app_read"] : alias =>
    regex("(?m)^${alias} = .*connect_query='([^']*)'", file("${path.module}/../pgbouncer.ini"))[0]
  }
}

# A proxy reads name and password from one secret. It holds nothing that the database's own secret does not.
resource "aws_secretsmanager_secret" "rds_proxy" {
  name_prefix = "${local.id}-rds-proxy-"
  description = "The name and password with which RDS Proxy signs in to Postgres"
}

resource "aws_secretsmanager_secret_version" "rds_proxy" {
  secret_id                = aws_secretsmanager_secret.rds_proxy.id
  secret_string_wo         = jsonencode({ username = "app", password = ephemeral.aws_secretsmanager_secret_version.database.secret_string })
  secret_string_wo_version = var.database.password_version
}

resource "aws_iam_role" "rds_proxy" {
  name_prefix = "${local.id}-rds-proxy-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "rds.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "rds_proxy" {
  name = "secret"
  role = aws_iam_role.rds_proxy.id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = aws_secretsmanager_secret.rds_proxy.arn }]
  })
}

resource "aws_security_group" "rds_proxy" {
  name_prefix = "${local.id}-rds-proxy-"
  description = "The pooler"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "rds_proxy" {
  description                  = "Postgres"
  security_group_id            = aws_security_group.rds_proxy.id
  referenced_security_group_id = aws_security_group.database.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "rds_proxy_from_app" {
  description                  = "The app"
  security_group_id            = aws_security_group.rds_proxy.id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "database_from_rds_proxy" {
  description                  = "The pooler"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.rds_proxy.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_db_proxy" "main" {
  for_each               = local.rds_proxies
  name                   = "${local.id}-${replace(each.key, "_", "-")}"
  engine_family          = "POSTGRESQL"
  role_arn               = aws_iam_role.rds_proxy.arn
  vpc_subnet_ids         = aws_subnet.data[*].id
  vpc_security_group_ids = [aws_security_group.rds_proxy.id]
  require_tls            = true
  auth {
    auth_scheme               = "SECRETS"
    client_password_auth_type = "POSTGRES_SCRAM_SHA_256"
    iam_auth                  = "DISABLED"
    secret_arn                = aws_secretsmanager_secret.rds_proxy.arn
  }
  depends_on = [aws_iam_role_policy.rds_proxy, aws_secretsmanager_secret_version.rds_proxy]
}

resource "aws_db_proxy_default_target_group" "main" {
  for_each      = local.rds_proxies
  db_proxy_name = aws_db_proxy.main[each.key].name
  connection_pool_config {
    max_connections_percent      = var.rds_proxy.connections_percent
    max_idle_connections_percent = var.rds_proxy.connections_percent
    connection_borrow_timeout    = 5 # DATABASE_POOL_WAIT_SECONDS, as query_wait_timeout of PgBouncer.
    init_query                   = each.value
  }
}

resource "aws_db_proxy_target" "main" {
  for_each               = local.rds_proxies
  db_proxy_name          = aws_db_proxy.main[each.key].name
  target_group_name      = aws_db_proxy_default_target_group.main[each.key].name
  db_instance_identifier = aws_db_instance.main.identifier
}
