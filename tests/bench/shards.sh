#!/usr/bin/env bash
# Sets one shard beside two on the same work, interleaved, and prints a table in Markdown: what a packet costs the process, and what
# each shard did of it. Needs root, two cores, iproute2, util-linux and our programs:
#
#     cargo build --release -p rallypoint -p turn-relay
#     tests/bench/shards.sh [DIRECTORY OF THE PROGRAMS]          (target/release)
#
# RUNS (3) of SECONDS_EACH (1.5) of each row, RATE (60000) packets a second; after LIMIT (90) seconds no further run is begun.
# README.md beside this says what it shows and what it cannot.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=${1:-target/release}
runs=${RUNS:-3}
seconds=${SECONDS_EACH:-1.5}
rate=${RATE:-60000}
limit=${LIMIT:-90}
source tests/bench/lab.sh

# RFC 2544's benchmark network. Sources are steered to shards: of the two clients' addresses one is of each of two shards.
servers=(198.18.1.1 198.18.3.1)
peer_net=198.18.2
user=bench
password=for-the-bench-alone

# start_turn THREADS PORT RELAY_PORTS: both run all the time, so that runs can be interleaved.
start_turn() {
    cat >"$dir/turn$1.toml" <<TOML
listen = ["udp://${servers[0]}:$2", "udp://${servers[1]}:$2"]
relay-addresses = ["$peer_net.1"]
relay-ports = "$3"
threads = $1
[[test-user]]
name = "$user"
password = "$password"
[peers]
allow = ["198.18.0.0/15"]
[quota]
allocations-per-user = 10000
allocations-per-address = 10000
bandwidth-per-allocation = "unlimited"
bandwidth-per-user = "unlimited"
silent-peer-packets = "unlimited"
[limits]
exempt = ["198.18.0.0/15"]
[drain]
deadline = "0s"
[admin]
listen = "127.0.0.1:$((9470 + $1))"
TOML
    start relay taskset -c 0 "$programs/rallypoint-turn" --config "$dir/turn$1.toml" run
    await_listener "$2"
}

# busy THREADS: the shares of the time since the last call in which each shard did not wait, of our metrics.
busy() {
    ip netns exec "$server_ns" bash -c "exec 3<>/dev/tcp/127.0.0.1/$((9470 + $1))
        printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3" |
        sed -n 's/^rallypoint_turn_worker_busy_ratio{worker="[0-9]*"} //p' | xargs printf '%.2f '
}

# ticks PID: CPU time of each shard's thread so far, in steps of 10 ms.
ticks() {
    local task
    for task in "/proc/$1/task"/*; do
        case $(<"$task/comm") in
            turn-*) cut -d')' -f2 "$task/stat" | awk '{ printf "%d ", $12 + $13 }' ;;
        esac
    done
}

# measure WORK THREADS PORT PID: a load from each of the two addresses at once.
measure() {
    local number before after shares of=() options=()
    case $1 in
        flood) options=(--window 64 --clients 32) ;;
        paced) options=(--rate "$((rate / 2))" --clients 32) ;;
        allocations) options=(--allocations --clients 8) ;;
    esac
    busy "$2" >/dev/null
    before=$(ticks "$4")
    for number in 0 1; do
        load turn --server "${servers[$number]}:$3" --user "$user" --password "$password" --peer-bind "$peer_net.254" \
            --seconds "$seconds" --server-pid "$4" "${options[@]}" >"$dir/load$number" 2>"$dir/error$number" &
        of+=($!)
    done
    for number in 0 1; do
        wait "${of[$number]}" || die "$1 on $2 shards: $(cat "$dir/error$number")"
    done
    after=$(ticks "$4")
    shares=$(busy "$2")
    awk -v work="$1" -v threads="$2" -v before="$before" -v after="$after" -v shares="$shares" \
        -v done0="$(count 0)" -v done1="$(count 1)" -v cost0="$(cost 0)" -v cost1="$(cost 1)" \
        -v seconds0="$(value seconds 0)" -v seconds1="$(value seconds 1)" \
        -v lost="$(($(lost 0) + $(lost 1)))" 'BEGIN {
            split(before, b); n = split(after, a)
            for (i = 1; i <= n; i++) threads_used = threads_used (i > 1 ? "+" : "") (a[i] - b[i]) * 10
            gsub(/ +$/, "", shares); gsub(/ /, "+", shares)
            # Each load tells the time of the whole process for its own packets: the same time twice.
            cpu = (cost0 * done0 + cost1 * done1) / 2
            print work, threads, done0 / seconds0 + done1 / seconds1, cpu / (done0 + done1), lost, threads_used, shares
        }' >>"$dir/results"
}

# value NAME NUMBER: of the report of that load.
value() { field "$1" "$(<"$dir/load$2")"; }
count() { value '\(relayed\|cycles\)' "$1"; }
cost() { value 'server_cpu_us_per_[a-z]*' "$1"; }
lost() { value '\(lost\|failed\)' "$1"; }

table() {
    cat <<HEAD
$(machine); at most $runs runs of $seconds s, interleaved, medians; servers on core 0, loads on core 1; load average $(cut -d' ' -f1-3 /proc/loadavg)

| work | shards | thousands/s | CPU us each (spread) | lost or failed | CPU of each shard's thread, ms, each run | busy ratio of each shard, each run |
| --- | --- | --- | --- | --- | --- | --- |
HEAD
    awk '
        function median(list,   n, i, j, t, v) {
            n = split(list, v, " ")
            for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j-1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
            low = v[1]; high = v[n]
            return n % 2 ? v[(n+1)/2] : (v[n/2] + v[n/2+1]) / 2
        }
        {
            key = $1 " | " $2
            if (!(key in rate)) order[++rows] = key
            rate[key] = rate[key] " " $3; cost[key] = cost[key] " " $4; lost[key] += $5
            used[key] = used[key] (used[key] ? ", " : "") $6; busy[key] = busy[key] (busy[key] ? ", " : "") $7
        }
        END {
            for (i = 1; i <= rows; i++) {
                key = order[i]
                r = median(rate[key]); c = median(cost[key])
                printf "| %s | %.1f | %.2f (%.2f-%.2f) | %d | %s | %s |\n", key, r / 1000, c, low, high, lost[key], used[key], busy[key]
            }
        }' "$dir/results"
}

check_lab taskset
[ "$(nproc)" -ge 2 ] || die "needs two cores"
make_lab
cable c 198.18.1 1 2
cable d 198.18.3 1 3
cable p "$peer_net" 1 254
on_load=(taskset -c 1)
start_turn 1 3478 49152-57343
one=$started
start_turn 2 3479 57344-65535
two=$started
: >"$dir/results"
for run in $(seq "$runs"); do
    for work in flood paced allocations; do
        [ "$SECONDS" -lt "$limit" ] || { echo "shards.sh: out of time in run $run" >&2; break 2; }
        measure "$work" 1 3478 "$one"
        measure "$work" 2 3479 "$two"
    done
done
sort -s -k2,2 -o "$dir/results" "$dir/results"
sort -s -k1,1r -o "$dir/results" "$dir/results"
table
