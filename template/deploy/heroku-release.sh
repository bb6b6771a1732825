# Rung's file: advancing to another stage may change it.
# Heroku runs this before each release (Procfile). After a failure the previous release still serves.
set -eu
fail() {
    echo "$1" >&2
    exit 1
}
if [ "${FILES_STORE:-folder}" != s3 ] && [ -z "${FILES_FOLDER:-}" ]; then
    fail "Heroku keeps no files: a dyno starts with an empty disk, at least once a day. Without uploads: heroku config:set \
FILES_FOLDER=/tmp. With uploads run this stage elsewhere, or stage 4 with S3: docs/guide/heroku.md"
fi
why=$(python -c 'import app.infra.wiring' 2>&1) ||
    fail "The app cannot start here: $(printf '%s\n' "$why" | tail -n 1). For a missing package commit bin/post_compile, which \
installs those of the stage, and push again."
exec ${MIGRATE:-alembic upgrade head}
