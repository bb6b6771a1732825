# Rung's file: advancing to another stage may change it.
variable "replicas" {
  description = "How many replicas answer reads"
  type        = number
  default     = 1
}

locals {
  replica_environment = {
    DATABASE_REPLICA_URLS = join(",", [for i in range(var.replicas) : local.pooler_replica_urls[i]])
  }
}

resource "aws_db_instance" "replica" {
  count                           = var.replicas
  identifier                      = "${local.id}-replica-${count.index + 1}"
  replicate_source_db             = aws_db_instance.main.identifier
  instance_class                  = var.database.class
  storage_type                    = "gp3"
  storage_encrypted               = true
  parameter_group_name            = aws_db_parameter_group.main.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  auto_minor_version_upgrade      = true
  max_allocated_storage           = var.database.max_storage
  copy_tags_to_snapshot           = true
  enabled_cloudwatch_logs_exports = local.database_logs
  performance_insights_enabled    = true
  skip_final_snapshot             = true # It holds no data that the primary does not hold.
}
