// Our stand-ins for Cilium's programs at a pod's veth, in Cilium's names, maps and layouts.
//
// They are not Cilium: IPv4 only, no masquerading, no tunnel. What they do is real: every flow gets
// a conntrack entry, ClusterIPs are balanced (lb.h), and the endpoint's policy map is enforced in
// both directions.
// Layouts: Cilium bpf/lib/{conntrack,eps,policy,metrics}.h and pkg/maps/*, as of 1.19 and later.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DROP_POLICY 133
#define INGRESS 1
#define EGRESS 2
#define MARK_IDENTITY 0x0F00
#define FLAG_RX_CLOSING 0x01
#define FLAG_TX_CLOSING 0x02
#define FLAG_SEEN_NON_SYN 0x10
#define FLAGS_CLOSING (FLAG_RX_CLOSING | FLAG_TX_CLOSING)
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct ct_key {
	__be32 daddr, saddr;
	__be16 dport, sport;
	__u8 nexthdr, flags; // 0 OUT, 1 IN
} __attribute__((packed));

struct ct_entry {
	__u64 nat_addr[2], packets, bytes;
	__u32 lifetime;
	__u16 flags, rev_nat_index, nat_port;
	__u8 tx_flags_seen, rx_flags_seen;
	__u32 src_sec_id, last_tx_report, last_rx_report;
};

struct endpoint_key {
	__u8 ip[16];
	__u8 family, key;
	__u16 cluster_id;
} __attribute__((packed));

struct endpoint_info {
	__u32 ifindex;
	__u16 unused, lxc_id;
	__u32 flags, pad;
	__u64 mac, node_mac;
	__u32 sec_id, parent_ifindex;
	__u64 pad2;
};

struct ipcache_key {
	__u32 prefixlen;
	__u16 cluster_id;
	__u8 pad, family;
	__u8 ip[16];
};

struct remote_info {
	__u32 sec_identity;
	__u8 tunnel_endpoint[16];
	__u16 pad;
	__u8 key, flags;
};

struct policy_key {
	__u32 prefixlen, sec_label;
	__u8 egress, protocol;
	__be16 dport;
};

struct policy_entry {
	__be16 proxy_port;
	__u8 flags, auth; // flags: bit 0 deny
	__u32 precedence, cookie;
};

struct metrics_key {
	__u8 reason, dir;
	__u16 line;
	__u8 file, pad[3];
};

struct metrics_value {
	__u64 count, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
	__uint(max_entries, 4096);
} cilium_ct4_global SEC(".maps"), cilium_ct_any4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint_info);
	__uint(max_entries, 256);
} cilium_lxc SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct ipcache_key);
	__type(value, struct remote_info);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} cilium_ipcache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} cilium_policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct metrics_key);
	__type(value, struct metrics_value);
	__uint(max_entries, 64);
} cilium_metrics SEC(".maps");

struct packet {
	__be32 saddr, daddr;
	__be16 sport, dport;
	__u8 protocol, tcp_flags;
	__u32 header; // length of the IP header
	__u32 length;
};

static __always_inline int parse(struct __sk_buff *skb, struct packet *p)
{
	__u8 verihl, offset;
	__be16 ports[2] = {};
	__u8 icmp[8] = {};

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &verihl, 1) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 9, &p->protocol, 1) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 12, &p->saddr, 4) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + 16, &p->daddr, 4))
		return 0;
	offset = (verihl & 0xF) * 4;
	p->header = offset;
	p->length = skb->len;
	if (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offset, ports, 4))
			return 0;
		p->sport = ports[0];
		p->dport = ports[1];
		if (p->protocol == IPPROTO_TCP)
			bpf_skb_load_bytes(skb, ETH_HLEN + offset + 13, &p->tcp_flags, 1);
		return 1;
	}
	if (p->protocol == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offset, icmp, 8))
			return 0;
		// The identifier stands in the client's port, in both directions.
		if (icmp[0] == 8)
			__builtin_memcpy(&p->sport, &icmp[4], 2);
		else if (icmp[0] == 0)
			__builtin_memcpy(&p->dport, &icmp[4], 2);
		else
			return 0;
		return 1;
	}
	return 0;
}

static __always_inline void *table(const struct packet *p)
{
	return p->protocol == IPPROTO_TCP ? (void *)&cilium_ct4_global : (void *)&cilium_ct_any4;
}

// The stored key's addresses are reversed, its ports are not (cilium-facts 3.2).
static __always_inline struct ct_key key_of(__be32 initiator, __be32 responder, __be16 sport,
					    __be16 dport, __u8 protocol, __u8 flags)
{
	struct ct_key key = {.daddr = initiator, .saddr = responder, .dport = dport,
			     .sport = sport, .nexthdr = protocol, .flags = flags};
	return key;
}

static __always_inline __u32 seconds(void) { return bpf_ktime_get_ns() / 1000000000ULL; }

static __always_inline __u32 lifetime(const struct packet *p, __u16 flags)
{
	if (p->protocol != IPPROTO_TCP)
		return seconds() + 60;
	if ((flags & FLAGS_CLOSING) == FLAGS_CLOSING)
		return seconds() + 10;
	return seconds() + (flags & FLAG_SEEN_NON_SYN ? 8000 : 60);
}

// What this end of the connection received is "rx", whoever began it: the requests of an entry of
// the server's side (Cilium bpf/lib/conntrack.h, ct_update_timeout).
static __always_inline void touch(struct ct_entry *e, const struct packet *p, int reply, int received)
{
	__u16 flags = e->flags;

	if (!reply && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && flags & FLAGS_CLOSING) {
		flags = 0; // the same ports again: opened anew
		e->tx_flags_seen = 0;
		e->rx_flags_seen = 0;
	}
	if (p->tcp_flags & (TCP_FIN | TCP_RST))
		flags |= received ? FLAG_RX_CLOSING : FLAG_TX_CLOSING;
	if (p->protocol == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN))
		flags |= FLAG_SEEN_NON_SYN;
	e->flags = flags;
	if (received) {
		e->rx_flags_seen |= p->tcp_flags;
		e->last_rx_report = seconds();
	} else {
		e->tx_flags_seen |= p->tcp_flags;
		e->last_tx_report = seconds();
	}
	e->lifetime = lifetime(p, flags);
	__sync_fetch_and_add(&e->packets, 1);
	__sync_fetch_and_add(&e->bytes, p->length);
}

#include "lb.h"

static __always_inline void create(const struct packet *p, struct ct_key *key, __u32 identity,
				   __be16 rev_nat, int received)
{
	struct ct_entry e = {.src_sec_id = identity, .rev_nat_index = rev_nat};

	touch(&e, p, 0, received);
	bpf_map_update_elem(table(p), key, &e, BPF_ANY);
}

static __always_inline __u32 identity_of(__be32 address)
{
	struct ipcache_key key = {.prefixlen = 64, .family = 1};
	struct remote_info *info;

	__builtin_memcpy(key.ip, &address, 4);
	info = bpf_map_lookup_elem(&cilium_ipcache, &key);
	return info ? info->sec_identity : 2;
}

static __always_inline int allowed(__u32 identity, __u8 egress, const struct packet *p)
{
	__be16 dport = p->protocol == IPPROTO_ICMP ? bpf_htons(8) : p->dport;
	struct policy_key key = {.prefixlen = 64, .sec_label = identity, .egress = egress,
				 .protocol = p->protocol, .dport = dport};
	struct policy_entry *own = bpf_map_lookup_elem(&cilium_policy, &key), *any;

	key.sec_label = 0;
	any = bpf_map_lookup_elem(&cilium_policy, &key);
	if ((own && own->flags & 1) || (any && any->flags & 1))
		return 0;
	return own || any;
}

static __always_inline int drop(__u8 reason, __u8 dir, __u32 length)
{
	struct metrics_key key = {.reason = reason, .dir = dir};
	struct metrics_value first = {.count = 1, .bytes = length}, *value;

	value = bpf_map_lookup_elem(&cilium_metrics, &key);
	if (value) {
		value->count++;
		value->bytes += length;
	} else {
		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_NOEXIST);
	}
	return TC_ACT_SHOT;
}

SEC("tc")
int cil_from_container(struct __sk_buff *skb)
{
	struct packet p = {};
	struct endpoint_key ep = {.family = 1};
	struct endpoint_info *self;
	struct ct_entry *e;
	struct ct_key key;
	int rev_nat;

	if (!parse(skb, &p))
		return TC_ACT_OK;
	__builtin_memcpy(ep.ip, &p.saddr, 4);
	self = bpf_map_lookup_elem(&cilium_lxc, &ep);
	if (!self)
		return TC_ACT_OK;
	skb->mark = MARK_IDENTITY | (self->sec_id & 0xFFFF) << 16 | self->sec_id >> 16;
	key = key_of(p.daddr, p.saddr, p.dport, p.sport, p.protocol, 1);
	e = bpf_map_lookup_elem(table(&p), &key);
	if (e) { // a reply of this pod
		touch(e, &p, 1, 0);
		return TC_ACT_OK;
	}
	rev_nat = balance(skb, &p);
	if (rev_nat < 0)
		return drop(DROP_NO_BACKEND, EGRESS, p.length);
	if (!allowed(identity_of(p.daddr), 1, &p))
		return drop(DROP_POLICY, EGRESS, p.length);
	key = key_of(p.saddr, p.daddr, p.sport, p.dport, p.protocol, 0);
	e = bpf_map_lookup_elem(table(&p), &key);
	if (e)
		touch(e, &p, 0, 0);
	else
		create(&p, &key, self->sec_id, rev_nat, 0);
	return TC_ACT_OK;
}

SEC("tc")
int cil_to_container(struct __sk_buff *skb)
{
	struct packet p = {};
	struct ct_entry *e;
	struct ct_key key;
	__u32 identity;

	if (!parse(skb, &p))
		return TC_ACT_OK;
	key = key_of(p.daddr, p.saddr, p.dport, p.sport, p.protocol, 0);
	e = bpf_map_lookup_elem(table(&p), &key);
	if (e) { // a reply to this pod
		touch(e, &p, 1, 1);
		if (e->rev_nat_index)
			unbalance(skb, &p, e->rev_nat_index);
		return TC_ACT_OK;
	}
	identity = identity_of(p.saddr);
	if (!allowed(identity, 0, &p))
		return drop(DROP_POLICY, INGRESS, p.length);
	key = key_of(p.saddr, p.daddr, p.sport, p.dport, p.protocol, 1);
	e = bpf_map_lookup_elem(table(&p), &key);
	if (e)
		touch(e, &p, 0, 1);
	else
		create(&p, &key, identity, 0, 1);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
