#!/usr/bin/env bash
# Measures what allocations cost in memory, ours and coturn's, and what is left of it when they have ended, and prints a table in
# Markdown. Needs root, iproute2, coturn, util-linux and our programs:
#
#     cargo build --release -p rallypoint && cargo build --release -p turn-relay
#     tests/bench/memory.sh [DIRECTORY OF THE PROGRAMS]          (target/release)
#
# ROWS picks rows, as server:threads:allocations; after LIMIT (180) seconds no further one is begun. README.md beside this says
# what it measures.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=${1:-target/release}
limit=${LIMIT:-180}
rows=${ROWS:-coturn:2:10000 rallypoint:1:10000 rallypoint:2:10000 rallypoint:1:50000 rallypoint:2:50000}
source tests/bench/lab.sh

# RFC 2544's benchmark network: one cable for clients, one for peers. Of the four client addresses two are steered to each of
# two shards, and all together have ports for 60,000 clients.
client_net=198.18.1
client_ends="2 3 4 5"
peer_net=198.18.2
relay_ends="1 2 3 4"
secret=for-the-memory-bench-alone-0123456789

turn_config() {
    cat <<TOML
listen = ["udp://$client_net.1:3478"]
relay-addresses = ["$peer_net.1", "$peer_net.2", "$peer_net.3", "$peer_net.4"]
threads = $1
[credentials]
secrets = [{ file = "$dir/secret" }]
[peers]
allow = ["198.18.0.0/15"]
[quota]
allocations = 65000
allocations-per-address = 65000
[limits]
exempt = ["198.18.0.0/15"]
[drain]
deadline = "0s"
[admin]
listen = "off"
TOML
}

start_server() {
    local last relays=()
    case $1 in
        rallypoint)
            turn_config "$2" >"$dir/turn.toml"
            start relay "$programs/rallypoint-turn" --config "$dir/turn.toml" run
            ;;
        coturn)
            for last in $relay_ends; do relays+=(-E "$peer_net.$last"); done
            start coturn turnserver -n --use-auth-secret --static-auth-secret "$secret" -r test -L "$client_net.1" "${relays[@]}" \
                -p 3478 -m "$2" --min-port 49152 --max-port 65535 --no-tls --no-dtls --no-tcp --no-tcp-relay --no-rfc5780 \
                --no-cli --no-stdout-log -l /dev/null --pidfile "$dir/coturn.pid" -b "$dir/turndb"
            ;;
        *) die "no such server: $1" ;;
    esac
}

# measure SERVER THREADS ALLOCATIONS: a fresh server, one run, one line of the table.
measure() {
    local last json binds=()
    for last in $client_ends; do binds+=(--client-bind "$client_net.$last"); done
    start_server "$1" "$2"
    await_listener 3478
    json=$(load hold --server "$client_net.1:3478" --secret "$dir/secret" --peer-bind "$peer_net.254" "${binds[@]}" \
        --allocations "$3" --probe --server-pid "$started") || die "$1 with $3: no figures: $(cat "$dir"/*.log)"
    stop "$started"
    [ -z "${KEEP:-}" ] || echo "$json" >>"$KEEP"
    row "$1" "$2" "$json"
}

# moment NAME KEY JSON: a figure of the server when idle, held or released.
moment() {
    field "$2" "$(grep -o "\"$1\":{[^}]*}" <<<"$3")"
}

row() {
    local json=$3 held idle_slab held_slab
    held=$(field held "$json")
    idle_slab=$(moment idle kernel_slab "$json")
    held_slab=$(moment held kernel_slab "$json")
    awk -v server="$1" -v threads="$2" -v held="$held" -v setup="$(field setup_seconds "$json")" \
        -v idle="$(moment idle rss "$json")" -v full="$(moment held rss "$json")" -v left="$(moment released rss "$json")" \
        -v peak="$(field peak_rss "$json")" -v each="$(field bytes_per_allocation "$json")" -v slab="$((held_slab - idle_slab))" \
        -v files="$(moment held descriptors "$json")" -v after="$(moment released descriptors "$json")" \
        -v up="$(field up "$json")" -v down="$(field down "$json")" 'BEGIN {
            mib = 1048576
            printf "| %s | %d | %d | %.1f s | %d / %d | %.1f | %.1f | %.1f | **%d** | %.1f (%.2fx) | %.1f | %d / %d |\n", server, threads, \
                held, setup, up, down, idle / mib, full / mib, peak / mib, each, left / mib, left / idle, slab / 1024 / held, files, after
        }'
}

check_lab turnserver
make_lab
cable c "$client_net" 1 "$client_ends"
cable p "$peer_net" "$relay_ends" 254
echo "$secret" >"$dir/secret"
chmod 600 "$dir/secret"
cat <<HEAD
$(machine), coturn $(turnserver --version 2>/dev/null | tail -1); resident memory in MiB

| server | threads | allocations held | made in | packets up / down | idle | held | peak | bytes each | after release (of idle) | kernel slab each, KiB | descriptors held / after |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
for row in $rows; do
    [ "$SECONDS" -lt "$limit" ] || { echo "memory.sh: out of time before $row" >&2; break; }
    IFS=: read -r server threads allocations <<<"$row"
    if [ "$((allocations + 100))" -gt "$files" ]; then
        echo "memory.sh: $row left out: a process of this system may open $files files at most" >&2
        continue
    fi
    measure "$server" "$threads" "$allocations"
done
