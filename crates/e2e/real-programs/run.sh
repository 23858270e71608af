#!/usr/bin/env bash
# Programs from Debian's own sources, built against our headers, on our ports: libpcap with its netmap back end, tcpdump on
# it, and with --qemu QEMU, whose netmap back end then forwards between an interface and a switch. tcpreplay, as Debian
# builds it, sends from the host's side. Each check compares whole frames with those that were sent.
#
# Needs root (network namespaces, interfaces), gcc, make, flex, bison, dpkg-source, tcpreplay, and Debian's archive of sources,
# which apt-get reaches; a list of sources of its own is derived from the system's, which stays as it is. QEMU
# needs meson, ninja, pkg-config, libglib2.0-dev and libpixman-1-dev too, and some 10 minutes on two processors.
# Works in a temporary folder; --keep leaves it. Without what it needs it says SKIP. PROGRAMS names a folder that has
# ringway and libnetmap.so; otherwise they are built.
set -euo pipefail
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../../.." && pwd)"
COUNT=500

die() {
    echo "real-programs: $*" >&2
    exit 1
}

skip() {
    echo "SKIP real-programs: $*"
    exit 0
}

# ---- Getting and building ------------------------------------------------------------------------------------------

# apt WORDS...: apt-get with lists and a cache of its own.
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$DIR/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$DIR/apt/lists" \
        -o Dir::Cache="$DIR/apt/cache" -o APT::Sandbox::User=root "$@"
}

# Sources from where the system has its Debian packages.
source_lists() {
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keys" ] && keys="[signed-by=$keys] " || keys=""
    mkdir -p "$DIR/apt/lists/partial" "$DIR/apt/cache/archives/partial"
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
        awk -v keys="$keys" '$1 ~ /\/debian\/?$/ && $3 == "main" { print "deb-src " keys $0 }' >"$DIR/apt/sources.list"
    [ -s "$DIR/apt/sources.list" ] || skip "apt-get knows no archive of Debian"
    apt update >"$DIR/log.apt" 2>&1 || skip "Debian's lists of sources cannot be fetched: $(tail -n 1 "$DIR/log.apt")"
}

# get PACKAGE: unpacks its source to $DIR/PACKAGE.
get() {
    mkdir "$DIR/get.$1"
    (cd "$DIR/get.$1" && apt --download-only source "$1") >"$DIR/log.get" 2>&1 ||
        skip "the source of $1 cannot be fetched: $(tail -n 1 "$DIR/log.get")"
    dpkg-source --no-check -x "$DIR/get.$1"/*.dsc "$DIR/$1" >"$DIR/log.get" 2>&1 || die "$1: $(cat "$DIR/log.get")"
    echo "source: $(basename "$DIR/get.$1"/*.dsc .dsc)"
}

# build LOG COMMAND...: in the current folder.
build() {
    local log="$DIR/log.$1"
    shift
    "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2 && die "$* failed in $PWD"; }
}

build_tcpdump() {
    get libpcap
    cd "$DIR/libpcap"
    CFLAGS="-g -O1 -I$ROOT/crates/capi/include" build libpcap ./configure --prefix="$DIR/out" --enable-netmap --without-libnl \
        --disable-dbus --disable-rdma --disable-bluetooth --disable-usb
    grep -q 'can compile the netmap support... yes' "$DIR/log.libpcap" || die "libpcap does not take our headers"
    build libpcap make -j"$(nproc)"
    build libpcap make install
    get tcpdump
    cd "$DIR/tcpdump"
    export PKG_CONFIG_PATH="$DIR/out/lib/pkgconfig" PATH="$DIR/out/bin:$PATH"
    CFLAGS="-g -O0" build tcpdump ./configure --prefix="$DIR/out" --disable-local-libpcap --without-crypto --without-cap-ng \
        --without-smi
    build tcpdump make -j"$(nproc)"
    cp tcpdump "$DIR/out/bin/tcpdump"
    # The same, linked with the library.
    build tcpdump make -B tcpdump LIBS="-Wl,--no-as-needed -L$PROGRAMS -Wl,-rpath,$PROGRAMS -lnetmap -L$DIR/out/lib -Wl,-rpath,$DIR/out/lib -lpcap"
    cp tcpdump "$DIR/out/bin/tcpdump-linked"
}

build_qemu() {
    get qemu
    mkdir "$DIR/qemu/build"
    cd "$DIR/qemu/build"
    CFLAGS=-O1 PATH="/usr/bin:$PATH" build qemu ../configure --target-list=avr-softmmu --without-default-features \
        --without-default-devices --enable-netmap --disable-docs --disable-tools --extra-cflags="-I$ROOT/crates/capi/include"
    build qemu ninja qemu-system-avr
}

# ---- Running -------------------------------------------------------------------------------------------------------

PIDS=()
# start LOG COMMAND...: in the background, ended with the script.
start() {
    local log="$DIR/$1"
    shift
    "$@" >"$log" 2>&1 &
    PIDS+=($!)
}

stop_all() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    PIDS=()
}

# says FILE TEXT: until a program has said something.
says() {
    local i
    for ((i = 0; i < 600; i++)); do
        grep -q -- "$2" "$DIR/$1" 2>/dev/null && return 0
        sleep 0.05
    done
    cat "$DIR/$1" >&2
    die "nobody said '$2'"
}

# listen NAME COMMAND...: starts a tcpdump that reads COUNT frames and ends.
listen() {
    start "$1.log" timeout 60 "${@:2}"
    LISTENER=${PIDS[-1]}
    says "$1.log" 'listening on'
}

# heard NAME: the tcpdump ends, having got all.
heard() {
    # Its number is nobody's from here on.
    unset 'PIDS[-1]'
    wait "$LISTENER" || { cat "$DIR/$1.log" >&2 && die "$1: tcpdump did not get its frames"; }
}

# same NAME FILE [FILTER...]: the frames of a pcap file are those that were sent.
same() {
    local want="$DIR/want.txt" got="$DIR/got.txt"
    "$DUMP" -n -t -e -xx -r "$DIR/sent.pcap" "${@:3}" >"$want" 2>/dev/null
    "$DUMP" -n -t -e -xx -r "$DIR/out/$2" >"$got" 2>/dev/null
    [ -s "$want" ] || die "$1: nothing to compare with"
    cmp "$want" "$got" || die "$1: not the frames that were sent"
    echo "ok: $1: $(grep -c '^[^[:space:]]' "$got") frames"
}

check_tcpdump() {
    local run="$PROGRAMS/ringway run" n=$COUNT
    # Drops its privileges once the port is open, as Debian's does.
    local options="-Z nobody -n -c $n"

    listen pipe $run "$DUMP" -i 'netmap:x}1' $options -w "$DIR/out/pipe.pcap"
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n 'netmap:x{1'
    heard pipe
    same "tcpdump -w on a pipe" pipe.pcap

    listen linked "$DUMP-linked" -i 'netmap:y}1' $options -w "$DIR/out/linked.pcap"
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n 'netmap:y{1'
    heard linked
    same "tcpdump linked with the library, on a pipe" linked.pcap

    # With this back end, -c counts frames before the filter.
    listen vale $run "$DUMP" -i vale0:t $options -w "$DIR/out/vale.pcap" udp port 9
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n vale0:s
    heard vale
    same "tcpdump -w with a filter on a switch" vale.pcap udp port 9

    # What it shows, rather than what it writes.
    listen shown $run "$DUMP" -i vale0:t -Z nobody -l -n -t -e -xx -c $n
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n vale0:s
    heard shown
    "$DUMP" -n -t -e -xx -r "$DIR/sent.pcap" >"$DIR/want.txt" 2>/dev/null
    grep -v -e '^tcpdump: ' -e '^listening on' -e ' packets ' "$DIR/shown.log" | cmp "$DIR/want.txt" - ||
        die "tcpdump on a switch shows other frames"
    echo "ok: tcpdump shows frames of a switch: $n frames"
}

check_interface() {
    local run="$PROGRAMS/ringway run" n=$COUNT

    listen nic_rx $run "$DUMP" -i netmap:v0 -Z nobody -n -c $n -w "$DIR/out/nic_rx.pcap"
    tcpreplay --quiet --pps=20000 -i v1 "$DIR/sent.pcap" >"$DIR/replay.log" 2>&1 || { cat "$DIR/replay.log" >&2 && die "tcpreplay"; }
    heard nic_rx
    same "tcpdump on an interface, from tcpreplay at the other end" nic_rx.pcap

    # The other end is read through the kernel.
    listen nic_tx "$DUMP" -i v1 -Q in -Z nobody -n -c $n -w "$DIR/out/nic_tx.pcap"
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n netmap:v0
    heard nic_tx
    same "nm_inject on an interface, tcpdump through the kernel at the other end" nic_tx.pcap
}

check_qemu() {
    local run="$PROGRAMS/ringway run" n=$COUNT
    local hub="-netdev hubport,hubid=0" i

    start qemu.log $run "$DIR/qemu/build/qemu-system-avr" -M none -nodefaults -display none -monitor none \
        -netdev netmap,id=a,ifname=netmap:v0 $hub,id=pa,netdev=a -netdev netmap,id=b,ifname=vale0:q $hub,id=pb,netdev=b
    for ((i = 0; i < 200; i++)); do
        "$PROGRAMS/ringway" ports | grep -q vale0:q && break
        sleep 0.05
    done
    listen qemu_in $run "$DUMP" -i vale0:t -Z nobody -n -c $n -w "$DIR/out/qemu_in.pcap"
    tcpreplay --quiet --pps=20000 -i v1 "$DIR/sent.pcap" >"$DIR/replay.log" 2>&1 || { cat "$DIR/replay.log" >&2 && die "tcpreplay"; }
    heard qemu_in
    same "QEMU from an interface to a switch" qemu_in.pcap
    listen qemu_out "$DUMP" -i v1 -Q in -Z nobody -n -c $n -w "$DIR/out/qemu_out.pcap"
    LD_PRELOAD="$PROGRAMS/libnetmap.so" "$DIR/frames" "$DIR/sent.pcap" $n vale0:s
    heard qemu_out
    same "QEMU from a switch to an interface" qemu_out.pcap
}

# In a network namespace of its own, which vanishes with the last process in it.
inside() {
    trap stop_all EXIT
    export RINGWAY_SOCKET="$DIR/sock" RINGWAYD=/nonexistent
    DUMP="$DIR/out/bin/tcpdump"
    # No frames but those that are sent here.
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true
    ip link add v0 type veth peer name v1
    ip link set v0 up
    ip link set v1 up
    start broker.log "$PROGRAMS/ringway" broker run --stay --socket "$RINGWAY_SOCKET"
    says broker.log ready
    check_tcpdump
    check_interface
    if [ "$QEMU" = 1 ]; then
        check_qemu
    fi
    echo "real-programs: all passed"
}

if [ "${1:-}" = --inside ]; then
    inside
    exit 0
fi

QEMU=0 KEEP=0
for arg in "$@"; do
    case "$arg" in
    --qemu) QEMU=1 ;;
    --keep) KEEP=1 ;;
    *) die "usage: run.sh [--qemu] [--keep]" ;;
    esac
done
[ "$(id -u)" -eq 0 ] || skip "needs root"
tools="apt-get dpkg-source gcc make flex bison tcpreplay ip"
[ "$QEMU" = 0 ] || tools="$tools meson ninja pkg-config"
for tool in $tools; do
    command -v "$tool" >/dev/null || skip "no $tool here"
done
if [ -z "${PROGRAMS:-}" ]; then
    target="${CARGO_TARGET_DIR:-$ROOT/target}/e2e"
    (cd "$ROOT" && cargo build --quiet -p ringway-apps --bins --target-dir "$target")
    (cd "$ROOT" && cargo build --quiet -p ringway-capi --lib --target-dir "$target")
    PROGRAMS="$(cd "$ROOT" && cd "$target/debug" && pwd)"
fi
DIR="$(mktemp -d)"
# Also for `nobody`, who writes into out/.
chmod 755 "$DIR"
export DIR PROGRAMS QEMU
cleanup() {
    if [ "$KEEP" = 1 ]; then
        echo "left: $DIR"
    else
        rm -rf "$DIR"
    fi
}
trap cleanup EXIT
mkdir "$DIR/out"
chmod 1777 "$DIR/out"
source_lists
build_tcpdump
if [ "$QEMU" = 1 ]; then
    build_qemu
fi
cd "$DIR"
build frames gcc -O1 -Wall -Wextra -Werror -I "$ROOT/crates/capi/include" -o "$DIR/frames" "$HERE/frames.c"
unshare --net "$HERE/run.sh" --inside
