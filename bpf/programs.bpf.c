// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The second layer: what other programs answered, and functions of the kernel's own way. It needs BPF trampolines,
 * which some kernels and hypervisors refuse, so it is an object of its own beside trace.bpf.c, whose maps it uses.
 *
 * At its end the entry program of a hook has the answer of those that it called by tail calls, too; a program that
 * was tail-called never comes back to a trampoline (kernel/bpf/trampoline.c). Each target has a copy of its own of
 * `tc_exit` or `xdp_exit`, which node/trace/programs.py attaches. They see the packet as the target left it.
 */
#include "follow.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 target SEC(".rodata.target") = 0; /* id of the program that is watched */

SEC("fexit")
int tc_exit(__u64 *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx[0];
	struct seen seen = {.hook = PROGRAM, .reason = ctx[1], .program = target};

	return look(skb, skb->dev, TRANSMITTING, &seen);
}

/* Return where the IP header of a frame begins, and its version; 0 where it has none. */
static __always_inline const unsigned char *network_of_frame(const unsigned char *data, __u32 *version)
{
	__be16 types[5];
	__u32 ethertype;

	if (bpf_probe_read_kernel(types, sizeof(types), data + 12))
		return 0;
	ethertype = bpf_ntohs(types[0]);
	data += 14;
	if (ethertype == VLAN || ethertype == QINQ) {
		ethertype = bpf_ntohs(types[2]);
		data += 4;
	}
	*version = ethertype == IPV4 ? 4 : ethertype == IPV6 ? 6 : 0;
	return *version ? data : 0;
}

/* XDP has no buffer: a packet is known by its tuple alone. */
SEC("fexit")
int xdp_exit(__u64 *ctx)
{
	struct xdp_buff *xdp = (struct xdp_buff *)ctx[0];
	struct seen seen = {.hook = PROGRAM, .reason = ctx[1], .program = target, .matched_by = BY_TUPLE};
	const unsigned char *end = xdp->data_end, *at;
	struct net_device *dev = xdp->rxq->dev;
	struct packet packet = {};
	struct event *event;
	__u32 version = 0;

	at = network_of_frame(xdp->data, &version);
	if (!at || !read_packet(end, at, version, &packet))
		return 0;
	seen.direction = config.filters ? by_filter(&packet.tuple) : NONE;
	if (!seen.direction && config.filters) {
		seen.matched_by = BY_LEARNED;
		seen.direction = by_learned(&packet.tuple);
	}
	seen.netns = dev->nd_net.net->ns.inum;
	if (!seen.direction) {
		if (!config.all && config.netns != seen.netns)
			return 0;
		seen.matched_by = BY_NAMESPACE;
	}
	event = begin(bpf_ktime_get_ns(), &packet, &seen);
	if (!event)
		return 0;
	event->length = end - xdp->data;
	event->ethertype = version == 4 ? IPV4 : IPV6;
	name_device(event, dev);
	__sync_fetch_and_add(&counters.sent, 1);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* What routing decided: to a socket here, on to another device, out of one (net/ipv4/ip_input.c, ip_forward.c,
 * ip_output.c and their like of IPv6). node/trace/programs.py has the functions in this order. */
static __always_inline int call(struct sk_buff *skb, int function)
{
	struct seen seen = {.hook = KERNEL, .program = function};

	return look(skb, skb->dev, TRANSMITTING, &seen);
}

SEC("fentry/ip_local_deliver")
int ip_local_deliver(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[0], 0);
}

SEC("fentry/ip_forward")
int ip_forward(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[0], 1);
}

SEC("fentry/ip_output")
int ip_output(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[2], 2);
}

SEC("fentry/ip6_input")
int ip6_input(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[0], 3);
}

SEC("fentry/ip6_forward")
int ip6_forward(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[0], 4);
}

SEC("fentry/ip6_output")
int ip6_output(__u64 *ctx)
{
	return call((struct sk_buff *)ctx[2], 5);
}
