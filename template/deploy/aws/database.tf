# Rung's file: advancing to another stage may change it.
resource "aws_db_subnet_group" "main" {
  name_prefix = "${local.id}-"
  subnet_ids  = aws_subnet.data[*].id
}

# The database has its own parameter group, with the library of the slow-query report, from stage 1 on: adding either
# later would need a restart.
resource "aws_db_parameter_group" "main" {
  name_prefix = "${local.id}-"
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
    for_each = local.database_parameters
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

resource "aws_security_group" "database" {
  name_prefix = "${local.id}-database-"
  description = "Postgres"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "database_from_app" {
  description                  = "The app and its migrations"
  security_group_id            = aws_security_group.database.id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 5432
  to_port                      = 5432
  ip_protocol                  = "tcp"
}

resource "aws_db_instance" "main" {
  identifier                      = local.id
  engine                          = "postgres"
  engine_version                  = "18" # No minor version: after AWS' upgrade, Terraform would plan a downgrade, and AWS refuses it.
  auto_minor_version_upgrade      = true
  instance_class                  = var.database.class
  allocated_storage               = var.database.storage
  max_allocated_storage           = var.database.max_storage
  storage_type                    = "gp3"
  storage_encrypted               = true # Turning this on later would need a copy of the database.
  db_name                         = "app"
  username                        = "app"
  password_wo                     = ephemeral.aws_secretsmanager_secret_version.database.secret_string
  password_wo_version             = var.database.password_version
  multi_az                        = var.database.multi_az
  db_subnet_group_name            = aws_db_subnet_group.main.name
  parameter_group_name            = aws_db_parameter_group.main.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  backup_retention_period         = var.database.backup_days
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  skip_final_snapshot             = false
  final_snapshot_identifier       = "${local.id}-final"
  enabled_cloudwatch_logs_exports = local.database_logs
  performance_insights_enabled    = true
  lifecycle {
    prevent_destroy = true
  }
}
