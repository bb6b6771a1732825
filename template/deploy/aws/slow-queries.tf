# Rung's file: advancing to another stage may change it.
locals {
  # deploy/postgres.conf in the units of RDS: a number in the parameter's unit, and 1 for on.
  postgres_conf = {
    for line in regexall("(?m)^([a-z_.]+) = '?([^'\\n]*)'?$", file("${path.module}/../postgres.conf")) : line[0] => line[1]
  }
  postgres_units = { on = "1", off = "0", "10MB" = "10240", "200ms" = "200" }
  slow_query_parameters = {
    for name, value in local.postgres_conf : name => lookup(local.postgres_units, value, value)
    # Not here: RDS sets the first and the last of these itself. The second and third need a restart. database.tf sets
    # the second, and the third is the default.
    if !contains(["max_connections", "shared_preload_libraries", "pg_stat_statements.max", "wal_keep_size"], name)
  }
  slow_query_logs = ["postgresql"]
}
