# Rung's file: advancing to another stage may change it.
variable "module_replicas" {
  description = "How many replicas the Postgres of a module has. The modules in module_databases_in_use read from them."
  type        = map(number)
  default     = {}
  validation {
    condition     = length(setsubtract(keys(var.module_replicas), var.module_databases)) == 0
    error_message = "module_replicas names a module that is not in module_databases."
  }
  validation {
    condition     = alltrue([for count in values(var.module_replicas) : count >= 1])
    error_message = "module_replicas has a number from 1 for each module. Leave out a module without replicas."
  }
}

locals {
  module_replicas = merge([
    for module, count in var.module_replicas : { for i in range(count) : "${module}-replica-${i + 1}" => module }
  ]...)
  hosts_of_module_replicas = {
    for module, count in var.module_replicas :
    module => [for i in range(count) : aws_db_instance.module_replica["${module}-replica-${i + 1}"].address]
  }
}

resource "aws_db_instance" "module_replica" {
  for_each                        = local.module_replicas
  identifier                      = "${local.id}-${replace(each.key, "_", "-")}"
  replicate_source_db             = aws_db_instance.module[each.value].identifier
  instance_class                  = var.module_database.class
  storage_type                    = "gp3"
  storage_encrypted               = true
  parameter_group_name            = aws_db_parameter_group.module[each.value].name
  vpc_security_group_ids          = [aws_security_group.module[each.value].id]
  auto_minor_version_upgrade      = true
  max_allocated_storage           = var.module_database.max_storage
  copy_tags_to_snapshot           = true
  enabled_cloudwatch_logs_exports = local.database_logs
  performance_insights_enabled    = true
  skip_final_snapshot             = true # It holds no data that its primary does not hold.
}
