// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Follow packets through this node: an event for each place that a packet passes, by tracepoints alone.
 * How a packet is known stands at the top of follow.h.
 *
 * Sources: include/trace/events/net.h and skb.h, net/core/dev.c.
 */
#include "follow.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int pass(__u64 *ctx, int hook, int receiving)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct seen seen = {.hook = hook};

	return look(skb, skb->dev, receiving, &seen);
}

SEC("tp_btf/net_dev_queue")
int queue(__u64 *ctx)
{
	return pass(ctx, QUEUE, TRANSMITTING);
}

SEC("tp_btf/net_dev_start_xmit")
int xmit(__u64 *ctx)
{
	return pass(ctx, XMIT, TRANSMITTING);
}

SEC("tp_btf/netif_rx")
int rx(__u64 *ctx)
{
	return pass(ctx, NETIF_RX, RECEIVING);
}

SEC("tp_btf/napi_gro_receive_entry")
int gro(__u64 *ctx)
{
	return pass(ctx, GRO, RECEIVING);
}

SEC("tp_btf/netif_receive_skb")
int receive(__u64 *ctx)
{
	return pass(ctx, RECEIVE, RECEIVING);
}

SEC("tp_btf/skb_copy_datagram_iovec")
int deliver(__u64 *ctx)
{
	struct seen seen = {.hook = DELIVER};

	return look((struct sk_buff *)ctx[0], 0, TRANSMITTING, &seen);
}

SEC("tp_btf/kfree_skb")
int drop(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct seen seen = {.hook = DROP, .location = ctx[1]};

	if (bpf_core_field_exists(struct trace_event_raw_kfree_skb, reason))
		seen.reason = ctx[2];
	return look(skb, skb->dev, TRANSMITTING, &seen);
}

SEC("tp_btf/consume_skb")
int consume(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct seen seen = {.hook = CONSUME};
	__u64 address = (__u64)skb;

	/* Most buffers end here: only those that were seen before are read. */
	if (!may_be_tracked[tracked_at(skb)] || !bpf_map_lookup_elem(&buffers, &address))
		return 0;
	if (bpf_core_field_exists(struct trace_event_raw_consume_skb, location))
		seen.location = ctx[1];
	return look(skb, skb->dev, TRANSMITTING, &seen);
}
