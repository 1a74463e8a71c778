#define _GNU_SOURCE /* fopencookie */
#include "shim.h"

#include <stdio.h>

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>

uint16_t pdmgate_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t room)
{
	return rte_eth_rx_burst(port, queue, packets, room);
}

uint16_t pdmgate_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

struct rte_mbuf *pdmgate_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void pdmgate_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

int pdmgate_errno(void)
{
	return rte_errno;
}

static pdmgate_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t length)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_sink(level < 0 ? RTE_LOG_INFO : (uint32_t)level, text, length);
	return (ssize_t)length;
}

int pdmgate_log_to(pdmgate_log_sink sink)
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	return stream == NULL ? -1 : rte_openlog_stream(stream);
}
