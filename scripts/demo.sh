#!/usr/bin/env bash
# Two hosts, two appliances between them, real traffic, and what can be seen of it.
#
#   scripts/demo.sh             hosts are network namespaces with the kernel's own stacks; the appliances register with each other
#   scripts/demo.sh --memory    no namespaces: two appliances joined by shared memory, a static pairing, traffic from a file
#
# The second way is taken by itself where the first is not permitted. BIN=FOLDER takes the programs that are there, and builds none.
set -euo pipefail
cd "$(dirname "$0")/.."

A=2001:db8:1::17
B=2001:db8:2::23
# Unique, so that two demos, or a demo and a test, do not meet.
NAME=pdmgate-$$
HOST_A=$NAME-host-a GATE_A=$NAME-gate-a WIRE=$NAME-wire GATE_B=$NAME-gate-b HOST_B=$NAME-host-b
DIR=$(mktemp -d "${TMPDIR:-/tmp}/$NAME-demo-XXXXXX")
TARGET=${CARGO_TARGET_DIR:-target}
PDMGATE=${BIN:-$TARGET/release}/pdmgate
LAB=${BIN:-$TARGET/release}/pdmgate-lab
STARTED=()
STEP=0

cleanup() {
    local status=$? name pid
    trap - EXIT
    for pid in "${STARTED[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    for name in "$HOST_A" "$GATE_A" "$WIRE" "$GATE_B" "$HOST_B"; do
        ip netns del "$name" 2>/dev/null || true
    done
    if [ "$status" -ne 0 ]; then
        for name in "$DIR"/*.log; do
            [ -s "$name" ] && printf '\n--- %s\n' "${name##*/}" && tail -n 20 "$name"
        done
    fi >&2
    rm -rf "$DIR"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { STEP=$((STEP + 1)); printf '\n\033[1m==> %d. %s\033[0m\n' "$STEP" "$*"; }
note() { printf '    %s\n' "$@"; }
fail() { echo "demo: $*" >&2; exit 1; }

# background NAME COMMAND...: reads from $INPUT, its output goes to NAME.out and NAME.log, its process id to $PID.
background() {
    local name=$1
    shift
    "$@" >"$DIR/$name.out" 2>"$DIR/$name.log" <"${INPUT:-/dev/null}" &
    PID=$!
    STARTED+=("$PID")
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || fail "no $what in time"
        sleep 0.1
    done
}

secret() { od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'; }

# configuration NAME INSIDE OUTSIDE CORE [METRICS-PORT]: the sections that say where secrets come from are read.
configuration() {
    mkdir -p "$DIR/$1"
    (umask 077 && cat >"$DIR/$1.yaml") <<EOF
ports:
  inside: { device: "$2" }
  outside: { device: "$3" }
workers: { cores: [$4], idle: sleep }
management: { core: $4 }
eal: { hugepages: off }
flows: { capacity: 65536 }
policy: { mtu: 1500 }
state: $DIR/$1/state.json
telemetry: { prometheus: "127.0.0.1:${5:-9464}", socket: $DIR/$1/pdmgate.sock }
EOF
    cat >>"$DIR/$1.yaml"
    "$PDMGATE" check "$DIR/$1.yaml" >"$DIR/$1-check.log" 2>&1 || fail "the configuration of $1 does not check"
}

# registered NAME SITE PREFIX PAIRING: an appliance that is its own Primary, which goes by SITE.
registered() {
    cat <<EOF
primary:
  certificate: ca/$2.pem
  key: ca/$2.key
  authorities: ca/ca.pem
  store: { path: $1/primary.redb }
  socket: $DIR/$1/primary.sock
  keylog: $1/keylog # so that this script can open a packet; off unless configured
  pairings: [ { $4 } ]
  secondaries: [ { name: gate.$2, entries: [ "$3" ] } ]
secondary: {}
EOF
}

static_pairing() {
    cat <<EOF
pairings:
  - name: demo
    mode: trusted-servers
    protection: sealed
    salt: $SALT
    pms: $PMS
    clients: [ { prefix: "2001:db8:1::/64", generation: 1 } ]
    servers: [ { prefix: "2001:db8:2::/64", group: web, generation: 1 } ]
EOF
}

stats() { "$PDMGATE" stats --socket "$DIR/$1/pdmgate.sock"; }
flows() { "$PDMGATE" flows --socket "$DIR/$1/pdmgate.sock"; }
registrations() { "$PDMGATE" registrations --socket "$DIR/$1/primary.sock"; }
is_registered() { registrations "$1" | awk '/ seals$/ { seals = 1 } / sending$/ { sends = 1 } END { exit !(seals && sends) }'; }

# end NAME PID: asks an appliance to end and checks that it ends well.
end() {
    local status=0
    kill -TERM "$2"
    wait "$2" || status=$?
    [ "$status" -eq 0 ] || fail "$1 ended with exit code $status"
    note "$1: drained, exit code 0"
}

# show CAPTURE SECRETS...: a sealed packet, as a viewer between the appliances sees it, and as `pdmgate decode SECRETS...` does.
show() {
    # The first from B to A: it answers something, so it has measured something.
    tcpdump -n -r "$1" -c 1 -w "$DIR/one.pcap" \
        "src $B and dst $A and ip6[6] == 60 and ip6[44] == 0x0f and ip6[45] == 0x22" 2>/dev/null
    [ "$(count "$DIR/one.pcap")" -gt 0 ] || fail "no sealed packet was captured"
    note "Whoever looks on sees that there is an option: at 0x002c its type and length (0f22), its version (2000)," \
         "and a number with the F bit. What follows are 14 sealed bytes and a 16-byte tag, the same to him as noise:" ""
    tcpdump -n -X -r "$DIR/one.pcap" 2>/dev/null | sed 's/^/    /' | cut -c1-160
    note "" "The pair's secrets open the same packet (pdmgate decode):" ""
    "$PDMGATE" decode "${@:2}" "$DIR/one.pcap" 2>"$DIR/decode.log" | head -n 1 | pretty | sed 's/^/    /'
}

pretty() { if command -v jq >/dev/null; then jq .; else cat; fi; }

capture() {
    background "$1" ip netns exec "$2" tcpdump -i "$3" -n -U -Z root -w "$DIR/$1.pcap" "$4"
    until_true 10 "capture at $3" grep -q 'listening on' "$DIR/$1.log"
}

# veth NETNS IFACE NETNS IFACE MTU
veth() {
    ip -n "$1" link add "$2" mtu "$5" type veth peer name "$4" mtu "$5" netns "$3"
    local end
    for end in "$1 $2" "$3 $4"; do
        # A driver that reads from a socket sees packets before the kernel fills in checksums or cuts segments.
        ip netns exec "${end% *}" ethtool -K "${end#* }" \
            rx off tx off sg off tso off gso off gro off rxvlan off txvlan off >/dev/null 2>&1
        ip -n "${end% *}" link set "${end#* }" up
    done
}

hosts_demo() {
    step "Making two hosts, two appliances and a wire between them"
    local name
    for name in "$GATE_A" "$WIRE" "$GATE_B" "$HOST_B"; do ip netns add "$name"; done
    for name in "$GATE_A" "$WIRE" "$GATE_B"; do
        ip -n "$name" link set lo up
        ip netns exec "$name" sh -c 'for d in all default; do echo 1 >/proc/sys/net/ipv6/conf/$d/disable_ipv6; done'
    done
    for name in "$HOST_A" "$HOST_B"; do
        ip -n "$name" link set lo up
        ip netns exec "$name" sh -c 'for f in accept_dad accept_ra; do echo 0 >/proc/sys/net/ipv6/conf/default/$f; done'
    done
    veth "$HOST_A" eth0 "$GATE_A" in0 1460
    veth "$GATE_A" out0 "$WIRE" a0 1500
    veth "$GATE_B" out0 "$WIRE" b0 1500
    veth "$HOST_B" eth0 "$GATE_B" in0 1460
    ip -n "$HOST_A" address add "$A/64" dev eth0 nodad
    ip -n "$HOST_A" route add 2001:db8:2::/64 dev eth0
    ip -n "$HOST_B" address add "$B/64" dev eth0 nodad
    ip -n "$HOST_B" route add 2001:db8:1::/64 dev eth0
    note "host A --- appliance A === wire === appliance B --- host B" \
         "$A                                  $B"
    # The appliances' own network, for registration.
    ip -n "$GATE_A" link add ctl type veth peer name ctl netns "$GATE_B"
    ip -n "$GATE_A" address add 10.9.0.1/24 dev ctl
    ip -n "$GATE_B" address add 10.9.0.2/24 dev ctl
    ip -n "$GATE_A" link set ctl up
    ip -n "$GATE_B" link set ctl up

    step "Making a throwaway authority and a certificate for each site (pdmgate keygen)"
    {
        "$PDMGATE" keygen ca "$DIR/ca" --days 1
        "$PDMGATE" keygen certificate "$DIR/ca" --name branch.example --days 1
        "$PDMGATE" keygen certificate "$DIR/ca" --name hq.example --days 1
    } >"$DIR/keygen.log" 2>&1 || fail "keygen failed"
    note "$(cd "$DIR" && echo ca/*)"

    step "Starting the wire: 5 ms each way, loses 0.5 % of marked packets, reorders 0.5 %"
    background wire ip netns exec "$WIRE" "$LAB" wire --a a0 --b b0 --delay 5ms --loss 0.005 --reorder 0.005 --only-marked
    local wire=$PID
    until_true 5 "wire" grep -q ready "$DIR/wire.log"

    step "Starting the appliances (AF_PACKET, no hugepages, workers that sleep when idle)"
    registered gate-a branch.example 2001:db8:1::/64 \
        'name: hq, peer: hq.example, role: client, connect: ["10.9.0.2:8250"], entries: [{ prefix: "2001:db8:1::/64" }]' |
        configuration gate-a net_af_packet0,iface=in0 net_af_packet1,iface=out0 0
    registered gate-b hq.example 2001:db8:2::/64 \
        'name: branch, peer: branch.example, role: server, entries: [{ prefix: "2001:db8:2::/64", group: web }]' |
        configuration gate-b net_af_packet0,iface=in0 net_af_packet1,iface=out0 "$CORE_B"
    background gate-a ip netns exec "$GATE_A" "$PDMGATE" run "$DIR/gate-a.yaml"
    local gate_a=$PID
    background gate-b ip netns exec "$GATE_B" "$PDMGATE" run "$DIR/gate-b.yaml"
    local gate_b=$PID
    until_true 30 "answer from appliance A" stats gate-a
    until_true 30 "answer from appliance B" stats gate-b
    capture between "$WIRE" a0 "ip6[6] == 60 and ip6[40] != 6"
    capture at-host-b "$HOST_B" eth0 "ip6[6] == 60"

    step "Registering: each appliance is its site's Primary; they agree on a secret (HPKE over TLS 1.3) and exchange lists"
    until_true 20 "registration of appliance A" is_registered gate-a
    until_true 20 "registration of appliance B" is_registered gate-b
    note "What appliance A says (pdmgate registrations):" ""
    registrations gate-a | sed 's/^/    /'

    step "Pinging host B from host A"
    ip netns exec "$HOST_A" ping -6 -n -c 20 -i 0.05 -q "$B" | sed 's/^/    /'

    step "Sending 20 MB by TCP from host A to host B"
    background tcp-serve ip netns exec "$HOST_B" "$LAB" tcp-serve --port 5001
    until_true 5 "TCP server" grep -q ready "$DIR/tcp-serve.log"
    ip netns exec "$HOST_A" "$LAB" tcp-send --to "[$B]:5001" --bytes 20000000 | sed 's/^/    /'

    step "Sending 2,000 datagrams, each of which host B sends back"
    background udp-sink ip netns exec "$HOST_B" "$LAB" udp-sink --port 6001 --echo
    local sink=$PID
    until_true 5 "UDP server" grep -q ready "$DIR/udp-sink.log"
    ip netns exec "$HOST_A" "$LAB" udp-send --to "[$B]:6001" --count 2000 --rate 1000 | sed 's/^/    host A: /'
    wait "$sink"
    sed 's/^/    host B: /' "$DIR/udp-sink.out"

    step "What appliance A measured"
    flows gate-a | sed 's/^/    /'

    step "One packet between the appliances"
    sleep 1.5
    show "$DIR/between.pcap" --keylog "$DIR/gate-a/keylog"
    note "" "Packets with a Destination Options header that host B saw: $(count "$DIR/at-host-b.pcap")"

    step "Ending"
    end "appliance A" "$gate_a"
    end "appliance B" "$gate_b"
    kill -TERM "$wire"
    wait "$wire"
    note "the wire says what it did:"
    wire_summary <"$DIR/wire.out" | sed 's/^/    /'
}

count() { tcpdump -n -r "$1" 2>/dev/null | wc -l; }

wire_summary() {
    if command -v jq >/dev/null; then
        jq -c 'to_entries[] | {way: .key} + (.value | {received, lost, reordered, delay_mean_us})'
    else
        cat
    fi
}

# testpmd NAME CORE ARGUMENTS...: starts DPDK's own test program, here as a host, and waits until its first port is joined to
# an appliance. Its commands are written to descriptor $CONSOLE.
testpmd() {
    local name=$1 core=$2
    shift 2
    mkfifo "$DIR/$name.in"
    exec {CONSOLE}<>"$DIR/$name.in"
    INPUT=$DIR/$name.in background "$name" stdbuf -oL dpdk-testpmd --lcores "0@$core,1@$core" \
        --no-huge -m 128 --no-pci --no-shconf --no-telemetry --file-prefix="$NAME-$name" \
        "$@" -i --no-lsc-interrupt --disable-link-check --no-flush-rx --total-num-mbufs=8192
    until_true 20 "link of $name" says "$name" 'show port info 0' 'Link status: up'
}

gone() { ! kill -0 "$1"; }

# says NAME COMMAND PATTERN: whether testpmd's output has the pattern, after the command.
says() {
    echo "$2" >&"$CONSOLE"
    sleep 0.2
    grep -q "$3" "$DIR/$1.out"
}

memory_demo() {
    command -v dpdk-testpmd >/dev/null || fail "dpdk-testpmd is not installed (Debian package dpdk-dev)"
    local memif=socket-abstract=no,id=0

    step "Making up traffic: 500 UDP and 500 TCP packets from host A to host B"
    "$LAB" samples --file "$DIR/host-a.pcap" --source "$A" --destination "$B" --packets 500

    step "Starting the appliances, joined by shared memory (net_memif)"
    static_pairing | configuration gate-a "net_memif0,role=server,$memif,socket=$DIR/a.sock" "net_memif1,role=server,$memif,socket=$DIR/m.sock" 0
    static_pairing | configuration gate-b "net_memif0,role=server,$memif,socket=$DIR/b.sock" "net_memif1,role=client,$memif,socket=$DIR/m.sock" "$CORE_B" 9465
    background gate-a "$PDMGATE" run "$DIR/gate-a.yaml"
    local gate_a=$PID
    until_true 30 "answer from appliance A" stats gate-a
    background gate-b "$PDMGATE" run "$DIR/gate-b.yaml"
    local gate_b=$PID
    until_true 30 "answer from appliance B" stats gate-b

    step "Starting host B, which sends each packet back, and host A, which replays the made-up ones"
    testpmd host-b "$CORE_B" --vdev="net_memif0,role=client,$memif,socket=$DIR/b.sock" -- --forward-mode=5tswap
    local host_b=$CONSOLE
    echo start >&"$host_b"
    testpmd host-a 0 --vdev="net_memif0,role=client,$memif,socket=$DIR/a.sock" \
        --vdev="net_pcap0,rx_pcap=$DIR/host-a.pcap,tx_pcap=$DIR/back.pcap" -- --forward-mode=io
    local host_a=$PID
    printf 'set burst 4\nstart\n' >&"$CONSOLE"
    local try
    for try in {1..40}; do
        says host-a 'show port stats 1' 'TX-packets: 1000 ' && break
    done
    # Both hosts keep a core busy.
    echo quit >&"$CONSOLE"
    echo quit >&"$host_b"
    until_true 10 "end of host A" gone "$host_a"
    note "host A sent $(count "$DIR/host-a.pcap") packets and got $(count "$DIR/back.pcap") back"

    step "What appliance A measured"
    flows gate-a | sed 's/^/    /'

    step "Ending"
    end "appliance A" "$gate_a"
    end "appliance B" "$gate_b"

    step "One packet sealed: an appliance of side B that writes what it would send into a file"
    # Its own secrets: it starts at the generation that appliance B has used, and no key may meet a number twice.
    SALT=$(secret)
    static_pairing | configuration gate-c "net_pcap0,rx_pcap=$DIR/back.pcap" "net_pcap1,tx_pcap=$DIR/between.pcap" 0
    background gate-c "$PDMGATE" run "$DIR/gate-c.yaml"
    local gate_c=$PID
    until_true 30 "answer" stats gate-c
    sleep 1
    end "appliance C" "$gate_c"
    show "$DIR/between.pcap" "$DIR/gate-c.yaml"
}

if [ -z "${BIN:-}" ]; then
    step "Building the release"
    cargo build --release --bin pdmgate --bin pdmgate-lab
fi
SALT=$(secret)
PMS=$(secret)
CORE_B=$(($(nproc) > 1 ? 1 : 0))

if [ "${1:-}" = --memory ]; then
    memory_demo
elif ip netns add "$HOST_A" 2>"$DIR/netns.err"; then
    hosts_demo
else
    note "This machine does not let me make network namespaces ($(head -n 1 "$DIR/netns.err"))." \
         "The same two appliances run in one lab over shared memory instead; there are no hosts, so traffic comes from a file."
    memory_demo
fi
