# Two network namespaces, for relay.sh, memory.sh and shards.sh, which source this: `server_ns` joined to `load_ns` by cables.
# What is started in them is ended by its id, and all of it removed, also when interrupted.

server_ns=rp-bench-$$-server
load_ns=rp-bench-$$-load
dir=$(mktemp -d)
pids=()
# What servers and the load are run by; each must exec the next.
on_server=()
on_load=()
# Processes of the system whose priority was raised.
raised=()
# Open files that a process can be allowed.
files=200000
prlimit --nofile="$files:$files" true 2>/dev/null || files=$(ulimit -Hn)

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

check_lab() {
    [ "$(id -u)" = 0 ] || die "needs root, for network namespaces"
    for tool in ip prlimit timeout awk "$@"; do
        command -v "$tool" >/dev/null || die "$tool is missing"
    done
    for program in rallypoint rallypoint-turn; do
        [ -x "$programs/$program" ] || die "$programs/$program is missing; build it first"
    done
}

make_lab() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    ip netns add "$server_ns"
    ip netns add "$load_ns"
    ip -n "$server_ns" link set lo up
    ip -n "$load_ns" link set lo up
}

# cable NAME NETWORK SERVERS LOADS: a veth pair with these last parts of addresses at each end.
cable() {
    local last
    ip link add "$1s" netns "$server_ns" type veth peer name "$1l" netns "$load_ns"
    for last in $3; do ip -n "$server_ns" addr add "$2.$last/24" dev "$1s"; done
    for last in $4; do ip -n "$load_ns" addr add "$2.$last/24" dev "$1l"; done
    ip -n "$server_ns" link set "$1s" up
    ip -n "$load_ns" link set "$1l" up
}

# start NAME COMMAND...: a server that may open many files; its process id into the variables `started` and NAME_pid.
start() {
    local name=$1
    shift
    ip netns exec "$server_ns" "${on_server[@]}" prlimit --nofile="$files:$files" "$@" >"$dir/$name.log" 2>&1 &
    # Every command in between execs the next, so that this is the server's own id.
    started=$!
    pids+=("$started")
    printf -v "${name}_pid" %s "$started"
}

# Ends the last server and what its clients have left on it.
stop() {
    local tries=0
    kill "$1" 2>/dev/null || true
    while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 20 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    trap '' INT TERM
    local pid
    # All are told first; a server may drain what its clients left, and nobody is served by that here.
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do stop "$pid"; done
    for pid in "${raised[@]}"; do chrt -o -p 0 "$pid" 2>/dev/null || true; done
    ip netns del "$server_ns" 2>/dev/null || true
    ip netns del "$load_ns" 2>/dev/null || true
    rm -rf "$dir"
}

load() {
    ip netns exec "$load_ns" "${on_load[@]}" prlimit --nofile="$files:$files" timeout 300 "$programs/rallypoint" load "$@" --json
}

# await_listener PORT: until the server has bound it. Nothing is sent, so that a server yet untouched stays so.
await_listener() {
    local try=0 port
    printf -v port %04X "$1"
    until ip netns exec "$server_ns" grep -q ":$port 00000000:0000" /proc/net/udp; do
        try=$((try + 1))
        [ "$try" -lt 50 ] || die "nothing listens at port $1: $(cat "$dir"/*.log)"
        sleep 0.1
    done
}

# field NAME JSON: a number of the load's report; the first of that name.
field() {
    grep -o "\"$1\":[0-9.]*" <<<"$2" | head -1 | cut -d: -f2 || true
}

machine() {
    echo "$(date -u +%Y-%m-%d), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, Linux $(uname -r)"
}
