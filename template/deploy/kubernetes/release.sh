# Rung's file: advancing to another stage may change it.
# sh deploy/kubernetes/release.sh ENVIRONMENT IMAGE: migrates with this image, then rolls to it. After a failure the old copies still
# serve: run the same command again.
set -eu
fail() {
    echo "$1" >&2
    exit 1
}
[ $# -eq 2 ] || fail "Usage: sh deploy/kubernetes/release.sh production registry/shop:TAG"
environment="$(dirname "$0")/../../environments/$1"
[ -f "$environment/kustomization.yaml" ] ||
    fail "There is no environments/$1/kustomization.yaml. Copy production's folder and edit the copy."

# Not echo: in some shells it would turn a \n in the text into a line break.
release=$(kubectl kustomize "$environment") || exit 1
printf '%s\n' "$release" | grep -q ' image: app$' ||
    fail "environments/$1/kustomization.yaml names its own image for the app. Remove it from \`images\`: this command gives the app its image."
release=$(printf '%s\n' "$release" | sed "s|^\( *-\{0,1\} *image:\) app\$|\1 $2|")
namespace=$(printf '%s\n' "$release" | sed -n 's/^  namespace: //p' | head -n 1)
[ -n "$namespace" ] || fail "environments/$1/kustomization.yaml has no namespace. Add the line \`namespace: NAME\`."
apply() { printf '%s\n' "$release" | kubectl apply --filename=- "$@"; }
here() { kubectl --namespace="$namespace" "$@"; }
id_of_job() { here get job migrate --output=jsonpath={.metadata.uid}; }
refuse_while_it_runs() {
    [ "$(here get job migrate --ignore-not-found --output=jsonpath={.status.active})" != 1 ] ||
        fail "The migration still runs. Wait for it: kubectl -n $namespace wait --for=condition=Complete job/migrate --timeout=9h. Then \
run the same command again. To end it instead: kubectl -n $namespace delete job migrate"
}

here get secret app postgres >/dev/null ||
    fail "Make the namespace and the Secrets app and postgres first: docs/guide/kubernetes.md."
refuse_while_it_runs
# A Job cannot be changed, so each release makes its own.
here delete job migrate --ignore-not-found
apply --selector='app.kubernetes.io/name notin (app, migrate)'
# The whole line, because a ClusterRole is no Cluster. With a managed Postgres there is none to wait for.
if printf '%s\n' "$release" | grep -qx 'kind: Cluster'; then
    here wait --for=condition=Ready cluster/database --timeout=15m
fi
apply --selector='app.kubernetes.io/name = migrate'
job=$(id_of_job)
# Follows the migration to its end, so the next line only waits for the verdict.
here logs --follow job/migrate --pod-running-timeout=10m || true
here wait --for=condition=Complete job/migrate --timeout=60s || {
    # A connection to a log may break, above all while a long statement writes no line.
    refuse_while_it_runs
    fail "The migration has failed, so no copy was replaced. The old release still serves."
}
[ "$(id_of_job)" = "$job" ] ||
    fail "Another release began at the same moment and replaced this migration. Wait until it ends, then run the same command again."
# Without the Job: another release may have deleted it just now, and the old migration would run again.
apply --selector='app.kubernetes.io/name != migrate'
here rollout status deployment/app --timeout=15m ||
    fail "The new copies do not become ready, so the old ones still serve. To go back: kubectl -n $namespace rollout undo deployment/app"
