# A slim image with the release binary and the DPDK drivers it may need.
#
#   docker build -t pdmgate .
#
# What needs no device needs no rights:
#
#   docker run --rm --user 65534 --cap-drop ALL -v ./pdmgate.yaml:/etc/pdmgate.yaml:ro pdmgate check /etc/pdmgate.yaml
#
# On interfaces of the host by AF_PACKET; AF_XDP needs BPF and SYS_ADMIN as well, and TAP needs --device /dev/net/tun:
#
#   docker run --network host --cap-drop ALL --cap-add NET_RAW --cap-add NET_ADMIN --cap-add IPC_LOCK --cap-add SYS_NICE \
#       -v ./pdmgate.yaml:/etc/pdmgate.yaml:ro -v pdmgate-state:/var/lib/pdmgate pdmgate run /etc/pdmgate.yaml
#
# On network cards bound to vfio-pci add these; hugepages are those that the host has reserved:
#
#       --device /dev/vfio --ulimit memlock=-1
#
# The state must survive the container: it holds the generation that keeps keys from being used twice.

FROM rust:1.95-bookworm AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang libclang-dev libdpdk-dev libprotobuf-dev pkg-config protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin pdmgate

FROM debian:bookworm-slim
# The four libraries the binary links, the pool driver, then one package a network driver: virtual devices, virtual
# machines, cards. Others are a package librte-net-* away.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        librte-eal23 \
        librte-ethdev23 \
        librte-mbuf23 \
        librte-mempool23 \
        librte-mempool-ring23 \
        librte-net-af-packet23 \
        librte-net-af-xdp23 \
        librte-net-memif23 \
        librte-net-null23 \
        librte-net-pcap23 \
        librte-net-ring23 \
        librte-net-tap23 \
        librte-net-ena23 \
        librte-net-virtio23 \
        librte-net-vmxnet3-23 \
        librte-net-bnxt23 \
        librte-net-e1000-23 \
        librte-net-i40e23 \
        librte-net-iavf23 \
        librte-net-ice23 \
        librte-net-igc23 \
        librte-net-ixgbe23 \
        librte-net-mlx5-23 \
        ibverbs-providers \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -p /var/lib/pdmgate /run/pdmgate
COPY --from=builder /src/target/release/pdmgate /usr/local/bin/pdmgate
COPY --from=builder /src/config /usr/share/pdmgate/config
VOLUME /var/lib/pdmgate
ENTRYPOINT ["pdmgate"]
CMD ["--help"]
