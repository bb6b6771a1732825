# Rung's file: advancing to another stage may change it.
variable "sessions" {
  description = "The size of the store of login sessions"
  type = object({
    node_type = optional(string, "cache.t4g.small")
    nodes     = optional(number, 2)
  })
  default = {}
}

variable "session_store" {
  description = "The step of the sessions' move (docs/runbooks/redis_sessions/move-the-sessions.md)"
  type        = string
  default     = "postgres"
}

locals {
  sessions_environment = {
    SESSION_STORE     = var.session_store
    SESSION_REDIS_URL = "rediss://${aws_elasticache_replication_group.sessions.primary_endpoint_address}:6379/0"
  }
}

resource "aws_elasticache_parameter_group" "sessions" {
  name   = "${local.id}-sessions"
  family = "valkey8"
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

# ElastiCache writes to disk at snapshots only, so a failover may lose the last logins and logouts. MemoryDB loses none.
resource "aws_elasticache_replication_group" "sessions" {
  replication_group_id       = "${local.id}-sessions"
  description                = "Login sessions, nothing is evicted"
  engine                     = "valkey"
  engine_version             = "8.0"
  node_type                  = var.sessions.node_type
  num_cache_clusters         = var.sessions.nodes
  automatic_failover_enabled = true
  multi_az_enabled           = true
  parameter_group_name       = aws_elasticache_parameter_group.sessions.name
  subnet_group_name          = aws_elasticache_subnet_group.main.name
  security_group_ids         = [aws_security_group.cache.id]
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  snapshot_retention_limit   = 7
  final_snapshot_identifier  = "${local.id}-sessions-final"
  lifecycle {
    prevent_destroy = true
  }
}
