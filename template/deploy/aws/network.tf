# Rung's file: advancing to another stage may change it.
data "aws_availability_zones" "all" {
  state = "available"
  filter {
    name   = "opt-in-status" # Excludes Local Zones, which sort first and have no RDS and no Fargate.
    values = ["opt-in-not-required"]
  }
}

data "aws_region" "here" {}

data "aws_partition" "here" {}

locals {
  zones = slice(data.aws_availability_zones.all.names, 0, 2)
}

resource "aws_vpc" "main" {
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = { Name = local.id }
}

# Every VPC has this group. Without rules it lets nothing through.
resource "aws_default_security_group" "main" {
  vpc_id = aws_vpc.main.id
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
}

# A task has a public address, because NAT gateways would cost more than the database. Only the load balancer can
# reach it.
resource "aws_subnet" "public" {
  count             = 2
  vpc_id            = aws_vpc.main.id
  cidr_block        = cidrsubnet(var.vpc_cidr, 8, count.index)
  availability_zone = local.zones[count.index]
  tags              = { Name = "${local.id}-public" }
  lifecycle {
    ignore_changes = [availability_zone] # A zone that is missing for a day must not cause the replacement of a subnet.
  }
}

# These subnets have no route out of the VPC.
resource "aws_subnet" "data" {
  count             = 2
  vpc_id            = aws_vpc.main.id
  cidr_block        = cidrsubnet(var.vpc_cidr, 8, 100 + count.index)
  availability_zone = local.zones[count.index]
  tags              = { Name = "${local.id}-data" }
  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.main.id
  }
}

resource "aws_route_table_association" "public" {
  count          = 2
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

# One group for each role. The file of the server that listens says who may reach it.
resource "aws_security_group" "app" {
  name_prefix = "${local.id}-app-"
  description = "Copies of the app"
  vpc_id      = aws_vpc.main.id
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "app" {
  description       = "AWS' services have public addresses"
  security_group_id = aws_security_group.app.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
