# Rung's file: advancing to another stage may change it.
"""Stage 3: traces and metrics through OpenTelemetry."""
