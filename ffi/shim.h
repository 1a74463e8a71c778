/*
 * What DPDK defines as inline functions, as functions that can be linked.
 *
 * The per-packet ones take a whole burst, so that crossing the language boundary costs one call a burst.
 */
#ifndef PDMGATE_SHIM_H
#define PDMGATE_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_mempool;

/* rte_eth_rx_burst, rte_eth_tx_burst, rte_pktmbuf_alloc and rte_pktmbuf_free under linkable names. */
uint16_t pdmgate_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t room);
uint16_t pdmgate_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
struct rte_mbuf *pdmgate_alloc(struct rte_mempool *pool);
void pdmgate_free(struct rte_mbuf *packet);

/* The error number of the calling thread's last DPDK call that reports through rte_errno. */
int pdmgate_errno(void);

/* One piece of DPDK's log: RTE_LOG_* level, and text that is not terminated by a zero. */
typedef void (*pdmgate_log_sink)(uint32_t level, const char *text, size_t length);

/* Sends DPDK's log to `sink` from now on. 0, or -1 when there is no memory for it. */
int pdmgate_log_to(pdmgate_log_sink sink);

#endif
