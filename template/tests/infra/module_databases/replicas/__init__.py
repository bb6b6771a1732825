# Rung's file: advancing to another stage may change it.
