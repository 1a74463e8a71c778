#!/usr/bin/env bash
# Installs what pdmgate needs on Debian 12, and reserves hugepages where that is permitted.
#
# Asks nothing, changes nothing that is there already, and may be run any number of times.
set -euo pipefail

cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Runs a command as root, or fails without asking for a password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

missing=()
# need PACKAGE COMMAND…: the package is missing unless the command succeeds.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
has() { command -v "$1" || command -v "/usr/sbin/$1" || command -v "/sbin/$1"; }
installed() { dpkg-query -W -f '${Status}' "$1" | grep -q 'ok installed'; }

need gcc has cc
need pkg-config has pkg-config
need libdpdk-dev pkg-config --exists 'libdpdk >= 22.11'
need dpdk has dpdk-devbind.py
need dpdk-dev has dpdk-testpmd
need clang has clang
need libclang-dev installed libclang-dev
need protobuf-compiler has protoc
need libprotobuf-dev installed libprotobuf-dev
need iproute2 has ip
need iputils-ping has ping
need ethtool has ethtool
need iperf3 has iperf3
need tcpdump has tcpdump
need tshark has tshark
need valgrind has valgrind
need jq has jq
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null ||
        die "this is not Debian or Ubuntu; install what these packages hold: ${missing[*]}"
    as_root true 2>/dev/null ||
        die "packages are missing and neither root nor passwordless sudo is there; as root:" \
            "    apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"
fi

# unpack PACKAGE PROGRAM: a program of a package whose installation would start a server is unpacked, not installed.
unpack() {
    local package=$1 program=$2
    if has "$program" >/dev/null || [ -x "target/tools/usr/bin/$program" ]; then
        return
    fi
    say "unpacking $program into target/tools"
    mkdir -p target/tools
    # A fresh machine has no package lists yet.
    (cd target/tools && apt-get -qq download "$package" 2>/dev/null) ||
        { as_root apt-get -qq update && (cd target/tools && apt-get -qq download "$package"); } ||
        die "cannot download the package $package, which holds $program"
    dpkg-deb -x "target/tools/${package}"_*.deb target/tools
    rm "target/tools/${package}"_*.deb
}
unpack prometheus promtool
unpack etcd-server etcd

command -v cargo >/dev/null || die "Rust 1.95 or later is needed: https://rustup.rs"
for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 ||
        rustup component add "$component" ||
        die "cargo ${component/rustfmt/fmt} is missing: rustup component add $component"
done

# 1 GB, but no more than a quarter of what is free, and never fewer than there are. EAL takes them without hugetlbfs.
pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
if [ -r $pages ]; then
    wanted=$(awk '/^MemAvailable:/ { quarter = int($2 / 2048 / 4); print quarter < 512 ? quarter : 512 }' /proc/meminfo)
    if [ "$(cat $pages)" -lt "$wanted" ]; then
        # shellcheck disable=SC2016 # expanded by the inner shell
        as_root sh -c 'echo "$1" > "$2"' sh "$wanted" $pages 2>/dev/null || true
    fi
    if [ "$(cat $pages)" -gt 0 ]; then
        say "$(cat $pages) hugepages of 2 MB"
    else
        say "no hugepages may be reserved here: going on without"
    fi
else
    say "this kernel has no hugepages of 2 MB: going on without"
fi
