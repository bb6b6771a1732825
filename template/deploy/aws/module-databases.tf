# Rung's file: advancing to another stage may change it.
variable "module_databases" {
  description = "Modules with their own Postgres, by the name of their folder in app/. The app uses none of them yet."
  type        = set(string)
  default     = []
  validation {
    condition     = alltrue([for module in var.module_databases : can(regex("^[a-z][a-z0-9_]*$", module))])
    error_message = "module_databases has the names of folders in app/, such as \"orders\"."
  }
}

variable "module_databases_in_use" {
  description = "Those of module_databases that the app uses. Without MODULE_..._DATABASE_FOLLOW, name a module here once its tables are there."
  type        = set(string)
  default     = []
  validation {
    condition     = length(setsubtract(var.module_databases_in_use, var.module_databases)) == 0
    error_message = "module_databases_in_use names a module that is not in module_databases."
  }
}

variable "module_database" {
  description = "The size of each module's Postgres. A higher password_version makes another password: docs/runbooks/rotation.md"
  type = object({
    class            = optional(string, "db.t4g.medium") # `make budget` counts the pools of all copies there.
    storage          = optional(number, 20)
    max_storage      = optional(number, 200)
    multi_az         = optional(bool, false)
    backup_days      = optional(number, 7)
    password_version = optional(number, 1)
  })
  default = {}
  validation {
    condition     = var.module_database.backup_days >= 1
    error_message = "backup_days is at least 1: a restore of rows needs them."
  }
}

locals {
  # Tables move by logical replication in both directions, so both servers need these settings. They take effect at the
  # next restart. A slot that nobody reads must not fill the disk.
  move_parameters = {
    "rds.logical_replication" = "1"
    max_slot_wal_keep_size    = "10240" # MiB
  }
  module_parameters = length(var.module_databases) == 0 ? {} : local.move_parameters
}

ephemeral "aws_secretsmanager_random_password" "module" {
  for_each            = var.module_databases
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "module" {
  for_each    = var.module_databases
  name_prefix = "${local.id}-database-${each.key}-"
  description = "The password of the Postgres of ${each.key}"
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_secretsmanager_secret_version" "module" {
  for_each                 = var.module_databases
  secret_id                = aws_secretsmanager_secret.module[each.key].id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.module[each.key].random_password
  secret_string_wo_version = var.module_database.password_version
}

# As for the common database, Postgres gets the stored password.
ephemeral "aws_secretsmanager_secret_version" "module" {
  for_each  = var.module_databases
  secret_id = aws_secretsmanager_secret_version.module[each.key].secret_id
}

# Only the password and the server's address are in it, so it can be made again.
resource "aws_secretsmanager_secret" "module_url" {
  for_each    = var.module_databases
  name_prefix = "${local.id}-url-${each.key}-"
  description = "The URL of the Postgres of ${each.key}, with its password"
}

resource "aws_secretsmanager_secret_version" "module_url" {
  for_each                 = var.module_databases
  secret_id                = aws_secretsmanager_secret.module_url[each.key].id
  secret_string_wo         = "postgresql://app:${ephemeral.aws_secretsmanager_secret_version.module[each.key].secret_string}@${aws_db_instance.module[each.key].address}:5432/${each.key}"
  secret_string_wo_version = var.module_database.password_version
}

resource "aws_db_parameter_group" "module" {
  for_each    = var.module_databases
  name_prefix = "${local.id}-${replace(each.key, "_", "-")}-"
  family      = "postgres18"
  parameter {
    name         = "shared_preload_libraries"
    value        = "pg_stat_statements,auto_explain"
    apply_method = "pending-reboot"
  }
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  dynamic "parameter" {
    for_each = merge(local.slow_query_parameters, local.move_parameters)
    content {
      name         = parameter.key
      value        = parameter.value
      apply_method = parameter.key == "rds.logical_replication" ? "pending-reboot" : "immediate"
    }
  }
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "module" {
  for_each    = var.module_databases
  name_prefix = "${local.id}-${replace(each.key, "_", "-")}-"
  description = "Postgres of ${each.key}"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "module_from_app" {
  for_each                     = var.module_databases
  description                  = "The app and its migrations"
  security_group_id            = aws_security_group.module[each.key].id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

# A move replicates in both directions, and the subscriber opens the connection.
resource "aws_vpc_security_group_ingress_rule" "module_from_database" {
  for_each                     = var.module_databases
  description                  = "The common database, in a move"
  security_group_id            = aws_security_group.module[each.key].id
  referenced_security_group_id = aws_security_group.database.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "module_to_database" {
  for_each                     = var.module_databases
  description                  = "The common database, in a move"
  security_group_id            = aws_security_group.module[each.key].id
  referenced_security_group_id = aws_security_group.database.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_ingress_rule" "database_from_module" {
  for_each                     = var.module_databases
  description                  = "The Postgres of ${each.key}, in a move"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.module[each.key].id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_vpc_security_group_egress_rule" "database_to_module" {
  for_each                     = var.module_databases
  description                  = "The Postgres of ${each.key}, in a move"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.module[each.key].id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_db_instance" "module" {
  for_each                        = var.module_databases
  identifier                      = "${local.id}-${replace(each.key, "_", "-")}"
  engine                          = "postgres"
  engine_version                  = "18" # As in database.tf.
  auto_minor_version_upgrade      = true
  instance_class                  = var.module_database.class
  allocated_storage               = var.module_database.storage
  max_allocated_storage           = var.module_database.max_storage
  storage_type                    = "gp3"
  storage_encrypted               = true
  db_name                         = each.key
  username                        = "app"
  password_wo                     = ephemeral.aws_secretsmanager_secret_version.module[each.key].secret_string
  password_wo_version             = var.module_database.password_version
  multi_az                        = var.module_database.multi_az
  db_subnet_group_name            = aws_db_subnet_group.main.name
  parameter_group_name            = aws_db_parameter_group.module[each.key].name
  vpc_security_group_ids          = [aws_security_group.module[each.key].id]
  backup_retention_period         = var.module_database.backup_days
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  skip_final_snapshot             = false
  final_snapshot_identifier       = "${local.id}-${replace(each.key, "_", "-")}-final"
  enabled_cloudwatch_logs_exports = local.database_logs
  performance_insights_enabled    = true
  lifecycle {
    prevent_destroy = true
  }
}
