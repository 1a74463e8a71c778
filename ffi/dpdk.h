/* The declarations that build.rs turns into Rust; the list of names it keeps is there. */
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "shim.h"

/* RTE_ETH_RSS_* are macros of macros, which bindgen does not evaluate. */

/* Hash types that look at the addresses of IPv6 packets and at nothing else. */
static const uint64_t PDMGATE_RSS_ADDRESSES =
	RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_IPV6_EX | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

/* The one of them that covers every IPv6 packet, whatever it carries. */
static const uint64_t PDMGATE_RSS_ANY_IPV6 = RTE_ETH_RSS_IPV6;

/* Hash types that look at the ports as well. */
static const uint64_t PDMGATE_RSS_PORTS =
	RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_NONFRAG_IPV6_SCTP |
	RTE_ETH_RSS_IPV6_TCP_EX | RTE_ETH_RSS_IPV6_UDP_EX;
