# Rung's file: advancing to another stage may change it.
variable "cache" {
  description = "The size of the cache"
  type = object({
    node_type = optional(string, "cache.t4g.micro")
    nodes     = optional(number, 1)
  })
  default = {}
}

locals {
  cache_environment = { CACHE_URL = "rediss://${aws_elasticache_replication_group.cache.primary_endpoint_address}:6379/0" }
}

resource "aws_elasticache_subnet_group" "main" {
  name       = local.id
  subnet_ids = aws_subnet.data[*].id
}

resource "aws_elasticache_parameter_group" "cache" {
  name   = "${local.id}-cache"
  family = "valkey8"
  parameter {
    name  = "maxmemory-policy"
    value = "allkeys-lfu"
  }
}

resource "aws_security_group" "cache" {
  name_prefix = "${local.id}-cache-"
  description = "Valkey"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "cache_from_app" {
  description                  = "The app"
  security_group_id            = aws_security_group.cache.id
  referenced_security_group_id = aws_security_group.app.id
  from_port                    = 6379
  to_port                      = 6379
  ip_protocol                  = "tcp"
}

resource "aws_elasticache_replication_group" "cache" {
  replication_group_id       = "${local.id}-cache"
  description                = "Answers that can be read again from Postgres"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = var.cache.node_type
  num_cache_clusters         = var.cache.nodes
  parameter_group_name       = aws_elasticache_parameter_group.cache.name
  subnet_group_name          = aws_elasticache_subnet_group.main.name
  security_group_ids         = [aws_security_group.cache.id]
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true # Turning this on later would replace the cache.
  apply_immediately          = true
}
