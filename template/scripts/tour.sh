# A person's first visit: register, look around, order, upload an image. `make tour` runs it.
set -eu

shop=${HOST:-http://localhost:${PORT:-8000}}  # as `make dev`
json='content-type: application/json'
export no_proxy="${no_proxy:-${NO_PROXY:-}},127.0.0.1,localhost"
now=$(date +%s)
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
cd "$desk"

step() { printf '\n%s\n' "$1" >&2; }
call() { curl --silent --show-error --fail-with-body --cookie jar --cookie-jar jar --write-out '\n' "$@"; }
# The first value of a key in a JSON answer.
value() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }

curl --silent --output /dev/null "$shop/live" || {
    echo "Nothing answers at $shop. Start it first: make dev" >&2
    exit 1
}

step 'POST /accounts: register. The answer sets the cookie of a login session.'
call "$shop/accounts" -H "$json" \
    -d "{\"email\": \"ada-$now@example.com\", \"password\": \"correct horse battery\"}"

step 'GET /products: the first page.'
call "$shop/products?limit=3"

step 'POST /orders: order two. With the same Idempotency-Key, a second try orders nothing.'
# The second product, because the first is sold out.
product=$(call "$shop/products?limit=2" | grep -o '"id":"[^"]*"' | sed -n 2p | cut -d '"' -f 4)
call "$shop/orders" -H "$json" -H "idempotency-key: $now-order" \
    -d "{\"items\": [{\"product_id\": \"$product\", \"quantity\": 2}]}"

step 'POST /uploads: announce an image. The answer says where to send its bytes.'
printf 'GIF89a\1\0\1\0\0\0\0;' > dot.gif
upload=$(call "$shop/uploads" -H "$json" -d '{"content_type": "image/gif", "size": 14}')
echo "$upload"

step 'PUT the bytes there, then POST its completion.'
call --upload-file dot.gif -H 'content-type: image/gif' -H 'if-none-match: *' \
    "$(echo "$upload" | value url)"
call -X POST "$shop/uploads/$(echo "$upload" | value id)/completion"
