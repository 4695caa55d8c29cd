#!/usr/bin/env bash
# Runs memory.sh in a user-mode Linux, where processes may open as many files as the kernel can: for 50,000 allocations on systems that
# allow a process fewer and do not let the limit be raised. Needs no root. Needs Debian's user-mode-linux, kmod, iproute2, util-linux
# and our programs, some 4 GiB of memory, and minutes: one core, and every system call is dear.
#
#     cargo build --release -p rallypoint && cargo build --release -p turn-relay
#     tests/bench/uml.sh [DIRECTORY OF THE PROGRAMS]          (target/release)
#
# ROWS as for memory.sh; after LIMIT (900) seconds all of it is ended.
set -euo pipefail
cd "$(dirname "$0")/../.."

programs=$(realpath "${1:-target/release}")
rows=${ROWS:-rallypoint:1:50000 rallypoint:2:50000}
limit=${LIMIT:-900}
uml=${UML:-linux.uml}
modules=${UML_MODULES:-/usr/lib/uml/modules}

if [ "$$" = 1 ]; then
    # Inside, as its first process, with the host's files to read.
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /run
    ip link set lo up
    insmod "$(find "$modules" -name veth.ko | head -1)" || true
    TMPDIR=/run ROWS=$rows LIMIT=$limit tests/bench/memory.sh "$programs" || true
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
fi

for tool in "$uml" insmod ip prlimit timeout; do
    command -v "$tool" >/dev/null || { echo "uml.sh: $tool is missing" >&2; exit 1; }
done
command="ROWS='$rows' LIMIT='$limit' UML_MODULES='$modules' PATH='$PATH' exec '$PWD/tests/bench/uml.sh' '$programs'"
init=$(mktemp)
trap 'rm -f "$init"' EXIT
printf '#!/bin/bash\n%s\n' "$command" >"$init"
chmod +x "$init"
# Its memory is a file there.
TMPDIR=${TMPDIR:-/dev/shm} timeout "$limit" "$uml" mem=6G root=/dev/root rootfstype=hostfs rootflags=/ ro quiet \
    con=null con0=null,fd:1 con1=null ssl=null init="$init" </dev/null
