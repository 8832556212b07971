// SPDX-License-Identifier: Apache-2.0
/* What others attach on a packet's way, for the checks of this folder: a NAT as Cilium does it, by tc programs and
 * without connection tracking of the kernel, and programs that drop. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETHERNET 14
#define CLIENT 0x0a010002 /* 10.1.0.2 */
#define ROUTER 0x0a020001 /* 10.2.0.1 */

char LICENSE[] SEC("license") = "Apache-2.0";

/* Replace an address of an IPv4 UDP packet, with both checksums. */
static int replace(struct __sk_buff *skb, int at, __u32 from, __u32 to)
{
	__u32 old = bpf_htonl(from), new = bpf_htonl(to), there;
	__u8 protocol;

	if (skb->protocol != bpf_htons(0x0800) || bpf_skb_load_bytes(skb, at, &there, 4) || there != old)
		return 0;
	bpf_skb_load_bytes(skb, ETHERNET + 9, &protocol, 1);
	if (protocol != 17)
		return 0;
	bpf_l4_csum_replace(skb, ETHERNET + 20 + 6, old, new, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
	bpf_l3_csum_replace(skb, ETHERNET + 10, old, new, 4);
	bpf_skb_store_bytes(skb, at, &new, 4, 0);
	return 0;
}

SEC("tc/snat")
int snat(struct __sk_buff *skb)
{
	return replace(skb, ETHERNET + 12, CLIENT, ROUTER);
}

SEC("tc/undo")
int undo(struct __sk_buff *skb)
{
	return replace(skb, ETHERNET + 16, ROUTER, CLIENT);
}

SEC("tc/shot")
int shot(struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(0x0806) ? 0 : 2;
}

SEC("xdp")
int xdp_drop(struct xdp_md *packet)
{
	const __u8 *data = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;

	return data + ETHERNET <= end && data[12] == 8 && data[13] == 6 ? XDP_PASS : XDP_DROP;
}

/* An entry program that answers by another one, as Cilium's do; the check fills the map. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} calls SEC(".maps");

SEC("tc/caller")
int caller(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &calls, 0);
	return 0;
}
