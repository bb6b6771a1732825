# Rung's file: advancing to another stage may change it.
# The variables that environments/*/main.tf may set at every stage. A capability's own variables are in its file, with defaults.
variable "name" {
  description = "The service's name, which begins the names of all its resources"
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*$", var.name)) && length("${var.name}-${var.environment}") <= 31
    error_message = "name and environment make up names of at most 31 characters (a-z, 0-9 and -): the load balancer's has 32. Shorten one."
  }
}

variable "environment" {
  description = "production, staging …"
  type        = string
}

variable "certificate_arn" {
  description = "A certificate of ACM, in this region, for the name in public_url"
  type        = string
}

variable "public_url" {
  description = "The address at which clients reach the service"
  type        = string
  validation {
    condition     = can(regex("^https://[^/]+$", var.public_url))
    error_message = "public_url is like https://shop.example.com: https, and no path."
  }
}

variable "page_origins" {
  description = "Other origins whose pages may call the service"
  type        = list(string)
  default     = []
}

variable "image" {
  description = "The image of this release. A plan without one keeps to a name that does not start."
  type        = string
  default     = "public.ecr.aws/docker/library/busybox:stable"
  nullable    = false
}

variable "copies" {
  description = "How many copies of the app run. With autoscaling, the minimum"
  type        = number
  default     = 1
}

variable "cpu" {
  description = "Of each copy: 1024 is one processor"
  type        = number
  default     = 512
}

variable "memory" {
  description = "Of each copy, in MiB"
  type        = number
  default     = 1024
}

variable "architecture" {
  description = "Of the processors: ARM64 (Graviton) costs a fifth less than X86_64. `make deploy` builds the image for it."
  type        = string
  default     = "ARM64"
  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "architecture is ARM64 or X86_64."
  }
}

variable "database" {
  description = "The size of Postgres. A higher password_version makes another password: docs/runbooks/rotation.md"
  type = object({
    class            = optional(string, "db.t4g.micro")
    storage          = optional(number, 20)
    max_storage      = optional(number, 200)
    multi_az         = optional(bool, false)
    backup_days      = optional(number, 7)
    password_version = optional(number, 1)
  })
  default = {}
  validation {
    condition     = var.database.backup_days >= 1
    error_message = "backup_days is at least 1: without backups there are no replicas, and turning them on later is an outage."
  }
}

variable "vpc_cidr" {
  description = "The addresses of the private network"
  type        = string
  default     = "10.0.0.0/16"
}

variable "extra_environment" {
  description = "Your own settings, by name"
  type        = map(string)
  default     = {}
}

variable "extra_secrets" {
  description = "Your own secrets: the setting's name, and the ARN in Secrets Manager (of one key of it: ARN:key::)"
  type        = map(string)
  default     = {}
}

locals {
  id = "${var.name}-${var.environment}"
}
