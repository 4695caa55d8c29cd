#!/usr/bin/env bash
# Measures rallypoint-turn and rallypoint-stun beside coturn on the same work, interleaved, and prints a table of medians
# and ratios in Markdown. Needs root, two cores, iproute2, coturn, util-linux and our programs:
#
#     cargo build --release -p rallypoint -p turn-relay -p stun-server
#     tests/bench/relay.sh [DIRECTORY OF THE PROGRAMS]          (target/release)
#
# RUNS (3) of SECONDS_EACH (1.5) for each cell; after LIMIT (180) seconds no further run is begun. WORKS picks rows.
# WIRE=no sends from sockets with a window in place of a flood of frames,
# REALTIME=no leaves the scheduler alone, STEERING=yes moves receive work to the receiver's core, OFFLOAD=no has the system cut
# trains before the cable (needs ethtool), FLOOR=yes measures a server that checks nothing too. README.md beside this says what
# it measures.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=${1:-target/release}
runs=${RUNS:-3}
seconds=${SECONDS_EACH:-1.5}
limit=${LIMIT:-240}
works=${WORKS:-up down both up256 down256 both256 pair burst trains-up trains-down flows128 binding allocations}
wire=${WIRE:-yes}
realtime=${REALTIME:-yes}
steering=${STEERING:-no}
offload=${OFFLOAD:-yes}
floor=${FLOOR:-no}

# RFC 2544's benchmark network: one cable for clients, one for peers.
client_net=198.18.1
peer_net=198.18.2
# Clients of the row of allocations: at addresses behind the first cable that nobody has.
nobodys_net=198.18.3
user=bench
password=for-the-bench-alone
source tests/bench/lab.sh

check() {
    check_lab turnserver taskset
    [ "$(nproc)" -ge 2 ] || die "needs two cores"
    [ "$offload" = yes ] || command -v ethtool >/dev/null || die "OFFLOAD=no needs ethtool"
    [ -x "$programs/rallypoint-stun" ] || die "$programs/rallypoint-stun is missing; build it first"
    [ "$floor" = no ] || [ -x "$programs/examples/floor" ] ||
        die "FLOOR=yes needs $programs/examples/floor: cargo build --release -p turn-relay --example floor"
}

# shaped_cable NAME NETWORK: a cable, .1 at the server and .2 at the load. With steering all receive work of the server's end is
# done on core 0 and that of the load's end on core 1, whoever sent; without, whoever sends does the receiver's.
shaped_cable() {
    cable "$1" "$2" 1 2
    if [ "$offload" = no ]; then
        ip netns exec "$server_ns" ethtool -K "$1s" tx-udp-segmentation off >/dev/null
        ip netns exec "$load_ns" ethtool -K "$1l" tx-udp-segmentation off >/dev/null
    fi
    [ "$steering" = yes ] || return 0
    steer "$server_ns" "$1s" 1
    steer "$load_ns" "$1l" 2
}

steer() {
    ip netns exec "$1" sh -c "echo $3 > /sys/class/net/$2/queues/rx-0/rps_cpus" || steering=no
}

make_network() {
    make_lab
    shaped_cable c "$client_net"
    shaped_cable p "$peer_net"
    # To an Ethernet address that nobody has: packets cross the cable and are dropped behind the listening of the load.
    ip -n "$server_ns" neigh replace "$nobodys_net.1" lladdr 02:00:00:00:00:01 dev cs nud permanent
    ip -n "$server_ns" route add "$nobodys_net.0/24" via "$nobodys_net.1" dev cs onlink
}

# Real-time priority keeps other work of the machine from coming in between; only with ksoftirqd raised too, which would
# starve otherwise.
raise_priority() {
    [ "$realtime" = yes ] || return 0
    chrt -f 1 true 2>/dev/null || { realtime=no; return 0; }
    local pid found
    found=$(for core in 0 1; do
        grep -lx "ksoftirqd/$core" /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3 || true
    done)
    [ "$(wc -w <<<"$found")" = 2 ] || { realtime=no; return 0; }
    for pid in $found; do
        chrt -f -p 1 "$pid" 2>/dev/null || { realtime=no; return 0; }
        raised+=("$pid")
    done
    on_server+=(chrt -f 1)
    on_load+=(chrt -f 1)
}

start_servers() {
    cat >"$dir/turn.toml" <<TOML
listen = ["udp://$client_net.1:3479"]
relay-addresses = ["$peer_net.1"]
relay-ports = "50000-65535"
threads = 1
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
[admin]
listen = "off"
TOML
    cat >"$dir/stun.toml" <<TOML
listen = ["udp://$client_net.1:3480"]
threads = 1
[limits]
exempt = ["198.18.0.0/15"]
[admin]
listen = "off"
TOML
    start coturn turnserver -n -a -u "$user:$password" -r test -L "$client_net.1" -E "$peer_net.1" -p 3478 \
        --min-port 30000 --max-port 49999 --no-tls --no-dtls --no-tcp --no-tcp-relay --no-rfc5780 --no-cli \
        --no-stdout-log -l /dev/null --pidfile "$dir/coturn.pid" -b "$dir/turndb"
    start turn "$programs/rallypoint-turn" --config "$dir/turn.toml" run
    start stun "$programs/rallypoint-stun" --config "$dir/stun.toml" run
    local port ports=(3478 3479 3480)
    if [ "$floor" = yes ]; then
        start floor "$programs/examples/floor" "$client_net.1:3481" "$peer_net.1" "$user" "$password"
        ports+=(3481)
    fi
    for port in "${ports[@]}"; do
        local try=0
        until load stun --server "$client_net.1:$port" --seconds 0.1 --window 4 >/dev/null 2>"$dir/error"; do
            try=$((try + 1))
            [ "$try" -lt 20 ] || die "nothing answers at port $port: $(cat "$dir/error" "$dir"/*.log)"
            sleep 0.2
        done
    done
}

# options WORK: what the load is told of it, into the array "told".
options() {
    local flood=(--wire)
    [ "$wire" = yes ] || flood=()
    case $1 in
        up) told=("${flood[@]}") ;;
        down) told=("${flood[@]}" --direction down) ;;
        both) told=("${flood[@]}" --direction both) ;;
        up256) told=("${flood[@]}" --clients 256) ;;
        down256) told=("${flood[@]}" --clients 256 --direction down) ;;
        both256) told=("${flood[@]}" --clients 256 --direction both) ;;
        pair) told=("${flood[@]}" --pairs) ;;
        burst)
            told=("${flood[@]}" --burst 16)
            [ "$wire" = yes ] || told+=(--window 512)
            ;;
        trains-up) told=(--burst 32 --offload --window 1024) ;;
        trains-down) told=(--burst 32 --offload --window 1024 --direction down) ;;
        flows128) told=("${flood[@]}" --rate 100000 --clients 128) ;;
        allocations)
            told=(--allocations --clients 256)
            [ "$wire" = no ] || told+=(--wire --client-net "$nobodys_net.0/24")
            ;;
        *) die "no such work: $1" ;;
    esac
}

# Hundredths of a second that all servers have worked.
worked() {
    awk '{ sum += $14 + $15 } END { print sum }' $(printf '/proc/%s/stat ' "${pids[@]}")
}

# Waits until no server has anything left to do, 5 seconds at most: coturn lets go of allocations for a second or two after a
# run, on the core that the next server is measured on.
settle() {
    local before after tries=0
    before=$(worked)
    while [ "$tries" -lt 25 ]; do
        tries=$((tries + 1))
        sleep 0.2
        after=$(worked)
        [ "$after" -gt "$before" ] || return 0
        before=$after
    done
}

# measure WORK SERVER PORT PID: one run; a line "work server rate cpu lost server-busy load-busy p50 p99" into the results, "-"
# for what the work has none of. A flood loses nothing: what the server has no time for is not relayed.
measure() {
    local work=$1 server=$2 port=$3 pid=$4 json told
    local common=(--server "$client_net.1:$port" --seconds "$seconds" --server-pid "$pid")
    settle
    if [ "$work" = binding ]; then
        json=$(load stun "${common[@]}")
    else
        options "$work"
        # A load that keeps an even rate spins between packets. After 0.95 s the system stops a real-time process that does, for
        # 0.05 s if others wait, which would be all there is to see in a p99. With the warm-up this ends before.
        [ "$work" != flows128 ] || common[3]=0.5
        json=$(load turn "${common[@]}" --user "$user" --password "$password" --peer-bind "$peer_net.2" "${told[@]}")
    fi
    # A server may refuse a client whose port an allocation of an earlier run still has.
    [ -n "$json" ] || return 1
    local foreign p50 p99 lost
    foreign=$(field foreign "$json")
    [ "${foreign:-0}" = 0 ] || die "packets came to foreign flows: $json"
    lost=$(field lost "$json")
    lost=${lost:-$(field failed "$json")}
    p50=$(field p50 "$json")
    p99=$(field p99 "$json")
    echo "$work $server $(field '[a-z]*_per_second' "$json") $(field 'server_cpu_us_per_[a-z]*' "$json") ${lost:--}" \
        "$(field server_busy "$json") $(field load_busy "$json") ${p50:--} ${p99:--}" >>"$dir/results"
}

table() {
    cat <<HEAD
$(machine), \
coturn $(turnserver --version 2>/dev/null | tail -1); at most $runs runs of $seconds s, interleaved; frames by packet socket: \
$wire, real time: $realtime, receive steering: $steering, offload of trains: $offload; load average \
$(cut -d' ' -f1-3 /proc/loadavg)

| work | coturn, thousands/s | us each | rallypoint, thousands/s | us each | rate | CPU | lost or failed (c / r) | server busy (c / r) | load busy (c / r) | spread of rate (c / r) |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
HEAD
    awk '
        function median(list,   n, i, j, t, v) {
            n = split(list, v, " ")
            for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j-1] + 0 > v[j] + 0; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t }
            low = v[1]; high = v[n]
            return n % 2 ? v[(n+1)/2] : (v[n/2] + v[n/2+1]) / 2
        }
        {
            if (!($1 in seen)) { seen[$1] = 1; order[++works] = $1 }
            key = $1 " " $2
            rate[key] = rate[key] " " $3; cpu[key] = cpu[key] " " $4
            server[key] = server[key] " " $6; load[key] = load[key] " " $7
            if ($5 == "-") flood[$1] = 1; else lost[key] += $5
            # Latency at a rate is one of the server; in a flow with a window it would be of the window.
            if ($8 != "-" && $1 ~ /^flows/) { p50[key] = p50[key] " " $8; p99[key] = p99[key] " " $9; timed[$1] = 1; any = 1 }
        }
        END {
            for (i = 1; i <= works; i++) {
                c = order[i] " coturn"; r = order[i] " rallypoint"
                if (!(c in rate) || !(r in rate)) continue
                cr = median(rate[c]); cs = sprintf("%.1f-%.1f", low / 1000, high / 1000)
                rr = median(rate[r]); rs = sprintf("%.1f-%.1f", low / 1000, high / 1000)
                cc = median(cpu[c]); rc = median(cpu[r])
                missing = order[i] in flood ? "flood" : sprintf("%d / %d", lost[c], lost[r])
                printf "| %s | %.1f | %.2f | %.1f | %.2f | %.2fx | %.2fx | %s | %.2f / %.2f | %.2f / %.2f | %s / %s |\n", \
                    order[i], cr / 1000, cc, rr / 1000, rc, rr / cr, cc / rc, missing, median(server[c]), median(server[r]), \
                    median(load[c]), median(load[r]), cs, rs
            }
            for (i = 1; i <= works; i++) {
                f = order[i] " floor"; c = order[i] " coturn"; r = order[i] " rallypoint"
                if (!(f in cpu) || !(c in cpu) || !(r in cpu)) continue
                if (!floors++) {
                    print "\n| floor of | thousands/s | us each | coturn to it, CPU | coturn to ours | ours to it | server busy |"
                    print "| --- | --- | --- | --- | --- | --- | --- |"
                }
                fc = median(cpu[f]); cc = median(cpu[c]); rc = median(cpu[r])
                printf "| %s | %.1f | %.2f | %.2fx | %.2fx | %.2fx | %.2f |\n", order[i], median(rate[f]) / 1000, fc, \
                    cc / fc, cc / rc, rc / fc, median(server[f])
            }
            if (!any) exit
            print "\n| latency of | coturn, p50 us | p99 us | rallypoint, p50 us | p99 us | p99, spread (c / r) |"
            print "| --- | --- | --- | --- | --- | --- |"
            for (i = 1; i <= works; i++) {
                c = order[i] " coturn"; r = order[i] " rallypoint"
                if (!(order[i] in timed) || !(c in p50) || !(r in p50)) continue
                c99 = median(p99[c]); cs = low "-" high
                r99 = median(p99[r]); rs = low "-" high
                printf "| %s | %d | %d | %d | %d | %s / %s |\n", order[i], median(p50[c]), c99, median(p50[r]), r99, cs, rs
            }
        }' "$dir/results"
}

check
on_server=(taskset -c 0)
on_load=(taskset -c 1)
make_network
raise_priority
start_servers
: >"$dir/results"
for run in $(seq "$runs"); do
    for work in $works; do
        [ "$SECONDS" -lt "$limit" ] || { echo "relay.sh: out of time in run $run" >&2; break 2; }
        measure "$work" coturn 3478 "$coturn_pid" || echo "run $run of $work on coturn is left out" >&2
        if [ "$work" = binding ]; then
            ours=(rallypoint 3480 "$stun_pid")
        else
            ours=(rallypoint 3479 "$turn_pid")
        fi
        measure "$work" "${ours[@]}" || echo "run $run of $work on ours is left out" >&2
        # The floor knows channels, and a client's only one.
        if [ "$floor" = yes ] && [[ ! "$work" =~ ^(binding|pair)$ ]]; then
            measure "$work" floor 3481 "$floor_pid" || echo "run $run of $work on the floor is left out" >&2
        fi
    done
done
table
