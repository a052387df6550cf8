#!/bin/sh
# Starts nginx in its container, and tells it where the workers are. Compose runs it before the image's own entrypoint.
#
# nginx.conf's ip_hash counts servers in their order. With names that nginx resolves itself, a worker that came back under
# another address would go to the end of the list, and most clients to other workers. So the list is written here, in
# the order of WORKER_NAMES; a worker that is away keeps its place as "down"; and nginx reads it again when it changes.
set -eu

seconds=1

# nginx's list of servers, one line for each worker.
servers() {
    for name in $WORKER_NAMES; do
        address=$(getent ahostsv4 "$name" | awk '{ print $1; exit }') || address=
        if [ -n "$address" ]; then
            echo "server $address:8000 max_fails=1 fail_timeout=5s; # $name"
        else
            echo "server 127.0.0.1:8000 down; # $name"
        fi
    done
}

# Until nginx ends; its process is the one that this shell becomes.
follow() {
    while sleep "$seconds" && kill -0 $$; do
        servers >"$RUN_DIR/workers.new"
        cmp -s "$RUN_DIR/workers.new" "$RUN_DIR/workers.conf" && continue
        # Before nginx has written this file, the signal would end what starts it.
        [ -s "$RUN_DIR/nginx.pid" ] || continue
        mv "$RUN_DIR/workers.new" "$RUN_DIR/workers.conf"
        kill -HUP $$
    done
}

servers >"$RUN_DIR/workers.conf"
[ "$STICKY" != ip ] || follow 2>/dev/null &

# What the image puts into nginx.conf. A list that nginx follows itself, by names: nothing hangs on its order. The name
# server is Docker's (127.0.0.11) or Podman's (the network's gateway).
WORKERS_BY_ADDRESS="include $RUN_DIR/workers.conf;"
WORKERS=$(printf 'server %s:8000 resolve max_fails=1 fail_timeout=5s; ' $WORKER_NAMES)
name_server=$(awk '$1 == "nameserver" { print $2 ~ /:/ ? "[" $2 "]" : $2; exit }' /etc/resolv.conf)
RESOLVER="resolver $name_server valid=5s ipv6=off;"

# Whom it lets to the admin API: ADMIN_NETWORKS, with commas in between, as app/cli/nginx.py says it, too.
ADMIN_ACCESS=$(echo "${ADMIN_NETWORKS-}" | tr ',' '\n' | awk '
    { gsub(/[ \t]/, "") }
    $0 == "*" { $0 = "all" }
    $0 != "" && tolower($0) != "none" { printf "allow %s; ", $0 }
    END { print "deny all;" }')
export WORKERS_BY_ADDRESS WORKERS RESOLVER ADMIN_ACCESS

exec /docker-entrypoint.sh "$@"
