# Rung's file: advancing to another stage may change it.
"""Moves files from the folder to S3. Delete this folder when the move is finished."""
