# Rung's file: advancing to another stage may change it.
terraform {
  required_version = ">= 1.11" # Write-only arguments, and a lock of the state in S3.
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 6"
    }
  }
}
