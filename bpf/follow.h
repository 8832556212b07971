/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
 *
 * Which packets are followed, and what is told of them: what trace.bpf.c and programs.bpf.c share.
 *
 * A packet belongs to what is followed, in this order:
 *   by its tuple, in either direction; inside a tunnel that of the inner packet, of an ICMP error the quoted one;
 *   by the tuple that netfilter's connection tracking has for it before translation (skb->_nfct);
 *   by a tuple that was learned: whatever a followed packet looked like at some place, both directions;
 *   by its buffer's address, while what translation and tunnels keep of it (its fingerprint) is the same.
 *
 * The tables of node/trace/packets.py mirror struct event, struct config and struct counters.
 * Sources: RFC 7348, 8926, 4443, 792; net/core/skbuff.c.
 */
#ifndef FOLLOW_H
#define FOLLOW_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58, SCTP = 132, IPIP = 4, IPV6_IN_IP = 41 };
enum { IPV4 = 0x0800, IPV6 = 0x86dd, VLAN = 0x8100, QINQ = 0x88a8, ETHERNET = 0x6558 };
enum hook { QUEUE = 1, XMIT, NETIF_RX, GRO, RECEIVE, DROP, CONSUME, DELIVER, PROGRAM, KERNEL };
enum direction { NONE, FORTH, BACK };
enum matched_by { BY_TUPLE = 1, BY_CONNTRACK, BY_LEARNED, BY_ADDRESS, BY_NAMESPACE };
enum packet_flags { ICMP_ERROR = 1, FIRST_FRAGMENT = 2, LATER_FRAGMENT = 4 };
enum copies { ONLY_ONE, COPY_LIVES, COPY_LIVED };
enum tunnel { NO_TUNNEL, VXLAN, GENEVE, IP_IN_IP };

#define MOST_FILTERS 16
/* With five levels of page tables, and on arm64 with 52 bits, they begin below 0xffff. What sockets keep in the
 * place of a device never has this bit (net/ipv4/udp.c, udp_dev_scratch). */
#define KERNEL_ADDRESS(pointer) ((__u64)(pointer) >> 63)

struct tuple { /* IPv4 addresses as ::ffff:a.b.c.d; network byte order */
	__u32 source[4];
	__u32 destination[4];
	__be16 source_port; /* of an ICMP echo the id, in both */
	__be16 destination_port;
	__u32 protocol;
};

struct packet {
	struct tuple tuple;
	__u32 outer_source[4];
	__u32 outer_destination[4];
	__u64 fingerprint;
	__u32 seq; /* TCP: host byte order; ICMP echo: its number */
	__u32 ack;
	__u32 tunnel_id;
	__u16 size; /* bytes of the IP packet, by its header */
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 flags;
	__u8 tunnel;
	__u8 ttl;
	__u32 padding;
};

struct event {
	__u64 time; /* ns, CLOCK_MONOTONIC */
	__u64 address; /* of the buffer */
	struct packet packet;
	__u32 netns; /* inode */
	__u32 ifindex;
	__u32 length; /* bytes of the buffer */
	__u32 reason; /* of a drop; 0: this kernel gives none. PROGRAM: its verdict */
	__u32 pid; /* of the process that reads: DELIVER, CONSUME of UDP */
	__u16 segments; /* of GSO */
	__u16 ethertype;
	__u8 hook;
	__u8 direction;
	__u8 matched_by;
	__u8 copies;
	char device[16];
	char command[16];
	char place[64]; /* DROP, CONSUME: function+offset */
	__u32 program; /* PROGRAM: its id; KERNEL: which function */
};

_Static_assert(sizeof(struct event) == 248, "node/trace/packets.py unpacks it");

#define MOST_DATA 256

struct packet_bytes { /* a record of its own behind that of its event, where bytes are asked for */
	__u64 time;
	__u64 address;
	__u32 length;
	unsigned char bytes[MOST_DATA + 4]; /* and padding */
};

_Static_assert(sizeof(struct packet_bytes) == 280, "node/trace/packets.py unpacks it");

struct end { /* of a filter; a mask of zeros makes it any */
	__u32 address[4];
	__u32 mask;
	__be16 port;
	__be16 port_mask;
};

struct filter { /* a packet from `from` to `to`, or back */
	struct end from;
	struct end to;
	__u32 protocol;
	__u32 protocol_mask;
};

struct config {
	__u32 filters; /* how many */
	__u32 netns; /* all packets of this network namespace too; 0: none */
	__u32 all; /* every packet */
	__u32 events_per_second;
	__u32 data; /* bytes of each packet to tell, from its IP header on */
	__be16 vxlan[2]; /* UDP ports */
	__be16 geneve[2];
	struct filter filter[MOST_FILTERS];
};

struct counters {
	__u64 sent; /* events */
	__u64 over_budget; /* events that were left out */
	__u64 ring_full; /* the same, since nobody read */
	__u64 second; /* begin of the running second, ns */
	__u64 in_second; /* events in it */
};

const volatile struct config config SEC(".rodata.config") = {};
struct counters counters SEC(".data.counters") = {};

/* One byte read here spares most foreign packets the look-up in a map. Each in a section of its own: objects that
 * share them may have variables in another order. */
__u8 may_be_learned[4096] SEC(".data.learned") = {};
__u8 may_be_tracked[4096] SEC(".data.tracked") = {};

struct learned {
	__u8 low_first; /* the direction in which the lower end is the source */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tuple); /* ordered: the lower end first */
	__type(value, struct learned);
} tuples SEC(".maps");

struct tracked {
	__u64 fingerprint;
	__u32 direction;
	__u32 netns; /* where it was seen last */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64); /* address of the buffer */
	__type(value, struct tracked);
} buffers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

/* --- what a packet is --------------------------------------------------------------------------- */

static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 29;
}

static __always_inline void copy4(__u32 to[4], const __u32 from[4])
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
	to[3] = from[3];
}

static __always_inline void mapped4(__u32 to[4], __u32 address)
{
	to[0] = to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = address;
}

struct ip_head { /* what the first bytes of a packet tell */
	const unsigned char *payload;
	__u32 size;
	__u32 id;
	__u32 protocol;
};

/* Read an IP header; return 0 where there is none. */
static __noinline int read_ip(const unsigned char *at, __u32 version, struct packet *packet, struct ip_head *ip)
{
	__u32 words[10];

	if (bpf_probe_read_kernel(words, sizeof(words), at))
		return 0;
	__u32 first = bpf_ntohl(words[0]);

	if (first >> 28 != version)
		return 0;
	if (version == 4) {
		__u32 header = (first >> 24 & 15) * 4, offset = bpf_ntohl(words[1]) & 0x3fff;

		ip->size = first & 0xffff;
		if (header < 20 || ip->size < header)
			return 0;
		if (offset & 0x1fff)
			packet->flags |= LATER_FRAGMENT;
		else if (offset & 0x2000)
			packet->flags |= FIRST_FRAGMENT;
		ip->id = bpf_ntohl(words[1]) >> 16;
		ip->protocol = bpf_ntohl(words[2]) >> 16 & 0xff;
		packet->ttl = bpf_ntohl(words[2]) >> 24;
		mapped4(packet->tuple.source, words[3]);
		mapped4(packet->tuple.destination, words[4]);
		ip->payload = at + header;
	} else {
		__u32 next = bpf_ntohl(words[1]) >> 8 & 0xff;
		const unsigned char *payload = at + 40;

		ip->size = 40 + (bpf_ntohl(words[1]) >> 16);
		ip->id = 0;
		packet->ttl = bpf_ntohl(words[1]) & 0xff;
		copy4(packet->tuple.source, words + 2);
		copy4(packet->tuple.destination, words + 6);
		/* Hop-by-hop, routing, fragment and destination options (RFC 8200, section 4.1). */
		for (int i = 0; i < 4; i++) {
			__u8 option[8];

			if (next != 0 && next != 43 && next != 44 && next != 60)
				break;
			if (bpf_probe_read_kernel(option, sizeof(option), payload))
				return 0;
			if (next == 44) {
				__u32 offset = option[2] << 8 | option[3];

				if (offset & 0xfff8)
					packet->flags |= LATER_FRAGMENT;
				else if (offset & 1)
					packet->flags |= FIRST_FRAGMENT;
				payload += 8;
			} else {
				payload += (option[1] + 1) * 8;
			}
			next = option[0];
		}
		ip->protocol = next;
		ip->payload = payload;
	}
	packet->size = ip->size;
	packet->tuple.protocol = ip->protocol;
	return 1;
}

/* The packet that an ICMP error quotes makes the tuple: as an answer to it, from its destination. */
static __always_inline void read_quoted(const unsigned char *at, __u32 version, struct packet *packet)
{
	/* Into the packet itself: the stack has no room for another one. */
	struct tuple *tuple = &packet->tuple;
	struct ip_head ip = {};
	__u8 flags = packet->flags, ttl = packet->ttl;
	__u16 size = packet->size;
	__u32 source[4];
	__be16 ports[4] = {};

	if (!read_ip(at, version, packet, &ip))
		return;
	if (!(packet->flags & LATER_FRAGMENT))
		bpf_probe_read_kernel(ports, sizeof(ports), ip.payload);
	packet->flags = flags | ICMP_ERROR;
	packet->ttl = ttl;
	packet->size = size;
	copy4(source, tuple->source);
	copy4(tuple->source, tuple->destination);
	copy4(tuple->destination, source);
	if (ip.protocol == ICMP || ip.protocol == ICMPV6) {
		tuple->source_port = tuple->destination_port = ports[2];
	} else {
		tuple->source_port = ports[1];
		tuple->destination_port = ports[0];
	}
	packet->fingerprint = mix(packet->fingerprint, ip.id);
}

/* Mix up to 32 bytes of data into a hash, those that are in one piece with the headers. */
static __always_inline __u64 mix_data(__u64 hash, const __u32 *words, __s64 bytes)
{
	for (int i = 0; i < 4; i++, bytes -= 8) {
		__u64 word = (__u64)words[2 * i + 1] << 32 | words[2 * i];

		if (bytes <= 0)
			break;
		if (bytes < 8)
			word &= (1ULL << bytes * 8) - 1;
		hash = mix(hash, word);
	}
	return hash;
}

/* Read what is behind the IP header: ports, and what no translation changes. */
static __noinline int read_transport(struct packet *packet, struct ip_head *ip, const unsigned char *end)
{
	__u32 words[10] = {}; /* 8 bytes of header and 32 of data; of TCP the header */
	__u64 hash = mix(ip->protocol, packet->flags & FIRST_FRAGMENT);
	__s64 linear = end - (ip->payload + 8);

	if (packet->flags & LATER_FRAGMENT || bpf_probe_read_kernel(words, sizeof(words), ip->payload))
		return 0;
	if (linear < 0)
		return 0;
	if (ip->protocol == TCP) {
		packet->seq = bpf_ntohl(words[1]);
		packet->ack = bpf_ntohl(words[2]);
		packet->tcp_flags = bpf_ntohl(words[3]) >> 16;
		hash = mix(mix(hash, (__u64)words[1] << 32 | words[2]), packet->tcp_flags);
	} else if (ip->protocol == UDP) {
		hash = mix(hash, (__u64)ip->id << 16 | (words[1] & 0xffff)); /* the length */
		__s64 data = bpf_ntohs(words[1] & 0xffff) - 8;

		hash = mix_data(hash, words + 2, data < linear ? data : linear);
	} else if (ip->protocol == ICMP || ip->protocol == ICMPV6) {
		__u32 kind = bpf_ntohl(words[0]) >> 16, type = kind >> 8;
		int echo = ip->protocol == ICMP ? type == 8 || type == 0 : type == 128 || type == 129;
		int error = ip->protocol == ICMP ? type == 3 || type == 11 || type == 12 || type == 5 : type < 128;

		packet->icmp_type = type;
		packet->icmp_code = kind & 0xff;
		packet->fingerprint = mix(hash, kind);
		if (error)
			read_quoted(ip->payload + 8, ip->protocol == ICMP ? 4 : 6, packet);
		if (!echo)
			return 1;
		packet->tuple.source_port = packet->tuple.destination_port = words[1] & 0xffff;
		packet->seq = bpf_ntohl(words[1]) & 0xffff;
		packet->fingerprint = mix_data(mix(packet->fingerprint, packet->seq), words + 2, linear);
		return 1;
	} else if (ip->protocol != SCTP) {
		packet->fingerprint = mix(hash, ip->id);
		return 1;
	}
	packet->tuple.source_port = words[0] & 0xffff;
	packet->tuple.destination_port = words[0] >> 16;
	packet->fingerprint = hash;
	return 1;
}

/* Return what tunnel a UDP port is of. */
static __always_inline int tunnel_at(__be16 port)
{
	if (!port) /* an empty place of the tables has it, too */
		return NO_TUNNEL;
	if (port == config.vxlan[0] || port == config.vxlan[1])
		return VXLAN;
	return port == config.geneve[0] || port == config.geneve[1] ? GENEVE : NO_TUNNEL;
}

/* Return the begin of a packet inside this one, and its IP version; 0 where there is none. */
static __always_inline const unsigned char *
inner_of(struct packet *packet, struct ip_head *ip, __u32 *version)
{
	const unsigned char *at = ip->payload + 8;
	__u8 tunnel[8], ethernet[14];
	__u32 ethertype;
	int kind;

	if (packet->flags & LATER_FRAGMENT)
		return 0;
	if (ip->protocol == IPIP || ip->protocol == IPV6_IN_IP) {
		packet->tunnel = IP_IN_IP;
		*version = ip->protocol == IPIP ? 4 : 6;
		return ip->payload;
	}
	kind = ip->protocol == UDP ? tunnel_at(packet->tuple.destination_port) : NO_TUNNEL;
	if (!kind)
		return 0;
	if (bpf_probe_read_kernel(tunnel, sizeof(tunnel), at))
		return 0;
	if (kind == VXLAN ? tunnel[0] != 8 : tunnel[0] >> 6 || tunnel[2] << 8 != (ETHERNET & 0xff00))
		return 0;
	at += kind == VXLAN ? 8 : 8 + (tunnel[0] & 0x3f) * 4;
	if (bpf_probe_read_kernel(ethernet, sizeof(ethernet), at))
		return 0;
	ethertype = ethernet[12] << 8 | ethernet[13];
	if (ethertype != IPV4 && ethertype != IPV6)
		return 0;
	packet->tunnel = kind;
	packet->tunnel_id = tunnel[4] << 16 | tunnel[5] << 8 | tunnel[6];
	*version = ethertype == IPV4 ? 4 : 6;
	return at + sizeof(ethernet);
}

/* Return where the IP header of a buffer begins, and its version; 0 where it has none. */
static __always_inline const unsigned char *
network_of(struct sk_buff *skb, int receiving, __u32 *version)
{
	const unsigned char *at = skb->head + skb->network_header;
	__u32 ethertype = bpf_ntohs(skb->protocol);

	if (receiving) {
		at = skb->data;
		for (int i = 0; i < 2 && (ethertype == VLAN || ethertype == QINQ); i++) {
			__be16 tag[2];

			if (bpf_probe_read_kernel(tag, sizeof(tag), at))
				return 0;
			ethertype = bpf_ntohs(tag[1]);
			at += 4;
		}
	} else if (ethertype == VLAN || ethertype == QINQ) {
		__u8 first = 0;

		if (bpf_probe_read_kernel(&first, 1, at))
			return 0;
		ethertype = first >> 4 == 4 ? IPV4 : IPV6;
	}
	*version = ethertype == IPV4 ? 4 : ethertype == IPV6 ? 6 : 0;
	return *version ? at : 0;
}

/* --- whether it is followed --------------------------------------------------------------------- */

static __always_inline __u32 other_end(const volatile struct end *end, const __u32 address[4], __be16 port)
{
	__u32 differs = end->address[0] ^ address[0];

	differs |= end->address[1] ^ address[1];
	differs |= end->address[2] ^ address[2];
	differs |= end->address[3] ^ address[3];
	return (differs & end->mask) | ((end->port ^ port) & end->port_mask);
}

/* 1 for zero, 0 for all else, without a jump. */
static __always_inline __u64 is_zero(__u64 number)
{
	__u64 negative = -number;

	barrier_var(negative); /* else the compiler sees what this is, and compares */
	return (number | negative) >> 63 ^ 1;
}

/* The first filter that selects the tuple decides. Without jumps: the kernel's verifier goes through every way
 * that a packet may take here, at each of the calls (16 filters took it half a minute). */
static __noinline int by_filter(const struct tuple *tuple)
{
	__u64 found = NONE, open = 1;

	for (int i = 0; i < MOST_FILTERS && i < config.filters; i++) {
		const volatile struct filter *filter = &config.filter[i];
		__u32 other = (filter->protocol ^ tuple->protocol) & filter->protocol_mask;
		__u64 forth = other | other_end(&filter->from, tuple->source, tuple->source_port) |
			      other_end(&filter->to, tuple->destination, tuple->destination_port);
		__u64 back = other | other_end(&filter->from, tuple->destination, tuple->destination_port) |
			     other_end(&filter->to, tuple->source, tuple->source_port);

		forth = is_zero(forth);
		back = is_zero(back) & (forth ^ 1);
		found |= open * (forth * FORTH | back * BACK);
		open &= (forth | back) ^ 1;
	}
	return found;
}

static __always_inline int reversed(int direction)
{
	return direction == NONE ? NONE : FORTH + BACK - direction;
}

/* Fill `key` with the tuple, its lower end first; return whether the ends changed places. */
static __always_inline int ordered(const struct tuple *tuple, struct tuple *key)
{
	int swap = 0;

	for (int i = 3; i >= 0; i--)
		if (tuple->source[i] != tuple->destination[i]) {
			swap = tuple->source[i] > tuple->destination[i];
			goto decided;
		}
	swap = tuple->source_port > tuple->destination_port;
decided:
	copy4(key->source, swap ? tuple->destination : tuple->source);
	copy4(key->destination, swap ? tuple->source : tuple->destination);
	key->source_port = swap ? tuple->destination_port : tuple->source_port;
	key->destination_port = swap ? tuple->source_port : tuple->destination_port;
	key->protocol = tuple->protocol;
	return swap;
}

static __always_inline __u32 learned_at(const struct tuple *tuple)
{
	__u32 hash = tuple->source[3] ^ tuple->destination[3];

	hash = (hash ^ tuple->source_port ^ tuple->destination_port) * 0x9e3779b1;
	return hash >> 20 & 4095;
}

static __always_inline __u32 tracked_at(struct sk_buff *skb)
{
	__u32 low;

	/* A move of 32 bits makes a number of the pointer, which may not be shifted. */
	asm volatile("%0 = %1" : "=w"(low) : "w"((__u32)(__u64)skb));
	return low >> 7 & 4095;
}

static __noinline int learn(const struct tuple *tuple, int direction)
{
	struct tuple key = {};
	struct learned value = {};
	int swapped = ordered(tuple, &key);

	value.low_first = swapped ? reversed(direction) : direction;
	may_be_learned[learned_at(tuple)] = 1;
	return bpf_map_update_elem(&tuples, &key, &value, 0);
}

static __noinline int by_learned(const struct tuple *tuple)
{
	struct tuple key = {};
	struct learned *found;
	int swapped;

	if (!may_be_learned[learned_at(tuple)])
		return NONE;
	swapped = ordered(tuple, &key);
	found = bpf_map_lookup_elem(&tuples, &key);
	if (!found)
		return NONE;
	return swapped ? reversed(found->low_first) : found->low_first;
}

/* Read a tuple of connection tracking: 0 is the original, 1 that of answers. */
static __always_inline int read_tracking(unsigned long nfct, int which, struct tuple *tuple)
{
	struct nf_conntrack_tuple entry = {};
	const struct nf_conn *connection = (const void *)(nfct & ~7UL);
	const void *at;

	if (!bpf_core_type_exists(struct nf_conn))
		return 0;
	if (which)
		at = __builtin_preserve_access_index(&connection->tuplehash[1].tuple);
	else
		at = __builtin_preserve_access_index(&connection->tuplehash[0].tuple);
	if (bpf_probe_read_kernel(&entry, sizeof(entry), at))
		return 0;
	if (entry.l3num == 2) {
		mapped4(tuple->source, entry.source[0]);
		mapped4(tuple->destination, entry.destination[0]);
	} else {
		copy4(tuple->source, entry.source);
		copy4(tuple->destination, entry.destination);
	}
	tuple->protocol = entry.protonum;
	tuple->source_port = entry.source_port;
	tuple->destination_port = entry.destination_port;
	if (entry.protonum == ICMP || entry.protonum == ICMPV6)
		tuple->destination_port = entry.source_port;
	return 1;
}

static __noinline int by_conntrack(unsigned long nfct)
{
	struct tuple original = {};
	int direction, answer = (nfct & 7) >= 3; /* IP_CT_IS_REPLY */

	if (!(nfct & ~7UL) || !read_tracking(nfct, 0, &original))
		return NONE;
	direction = by_filter(&original);
	if (!direction)
		direction = by_learned(&original);
	return answer ? reversed(direction) : direction;
}

static __always_inline int by_address(struct sk_buff *skb, __u64 fingerprint)
{
	__u64 address = (__u64)skb;
	struct tracked *found;

	if (!may_be_tracked[tracked_at(skb)])
		return NONE;
	found = bpf_map_lookup_elem(&buffers, &address);
	if (!found)
		return NONE;
	if (found->fingerprint == fingerprint)
		return found->direction;
	bpf_map_delete_elem(&buffers, &address);
	return NONE;
}

/* What it looks like here, and what connection tracking will make of it and of its answers. */
static __always_inline void learn_all(unsigned long nfct, const struct packet *packet, int direction)
{
	struct tuple tuple = {};
	int answer = (nfct & 7) >= 3;

	learn(&packet->tuple, direction);
	if (!(nfct & ~7UL) || packet->tunnel)
		return;
	if (read_tracking(nfct, 0, &tuple))
		learn(&tuple, answer ? reversed(direction) : direction);
	if (read_tracking(nfct, 1, &tuple))
		learn(&tuple, answer ? direction : reversed(direction));
}

/* --- events ------------------------------------------------------------------------------------- */

static __always_inline int in_budget(__u64 now)
{
	if (now - counters.second >= 1000000000ULL) {
		counters.second = now;
		counters.in_second = 0;
	}
	/* Two steps: an atomic one that returns a value is of Linux 5.12. The budget may be missed by a few. */
	if (counters.in_second < config.events_per_second) {
		__sync_fetch_and_add(&counters.in_second, 1);
		return 1;
	}
	__sync_fetch_and_add(&counters.over_budget, 1);
	return 0;
}

/* `dev` is the buffer's, 0 where it is in a socket: sockets keep other things in its place. */
static __always_inline __u32 netns_of(struct sk_buff *skb, struct net_device *dev)
{
	struct sock *sk;

	if (KERNEL_ADDRESS(dev))
		return dev->nd_net.net->ns.inum;
	sk = skb->sk;
	return sk ? sk->__sk_common.skc_net.net->ns.inum : 0;
}

/* Whether the same bytes live in another buffer. TCP's own copy, kept to be sent again, counts for none: it
 * holds the payload, not the header (net/core/skbuff.c, skb_header_cloned). */
static __always_inline int copies_of(struct sk_buff *skb, const struct skb_shared_info *shared)
{
	__u32 references = 0;

	if (!BPF_CORE_READ_BITFIELD(skb, cloned))
		return ONLY_ONE;
	bpf_core_read(&references, sizeof(references), &shared->dataref.counter);
	if ((references & 0xffff) - (references >> 16) > 1)
		return COPY_LIVES;
	return BPF_CORE_READ_BITFIELD(skb, fclone) ? ONLY_ONE : COPY_LIVED;
}

struct seen { /* what is told beside the packet */
	__u64 location;
	__u32 reason;
	__u32 netns;
	__u32 program;
	__u8 hook;
	__u8 direction;
	__u8 matched_by;
};

/* Tell the first bytes of a packet as it is here, those that are in one piece with its headers. */
static __noinline int send_bytes(struct sk_buff *skb, const unsigned char *at, __u64 now)
{
	struct packet_bytes *told;
	__s64 length = skb->head + skb->tail - at;

	if (!at || length <= 0)
		return 0;
	if (length > config.data)
		length = config.data;
	if (length > MOST_DATA)
		length = MOST_DATA;
	told = bpf_ringbuf_reserve(&events, sizeof(*told), 0);
	if (!told) {
		__sync_fetch_and_add(&counters.ring_full, 1);
		return 0;
	}
	told->time = now;
	told->address = (__u64)skb;
	told->length = length;
	if (bpf_probe_read_kernel(told->bytes, length, at))
		told->length = 0;
	bpf_ringbuf_submit(told, 0);
	return 0;
}

/* Make room for an event with what every place tells; return 0 where it is left out, and counted. */
static __always_inline struct event *begin(__u64 now, const struct packet *packet, const struct seen *seen)
{
	struct event *event;

	if (!in_budget(now))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&counters.ring_full, 1);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->time = now;
	event->packet = *packet;
	event->hook = seen->hook;
	event->direction = seen->direction;
	event->matched_by = seen->matched_by;
	event->reason = seen->reason;
	event->netns = seen->netns;
	event->program = seen->program;
	return event;
}

static __always_inline void name_device(struct event *event, struct net_device *dev)
{
	event->ifindex = dev->ifindex;
	bpf_probe_read_kernel_str(event->device, sizeof(event->device), dev->name);
}

static __always_inline void
send(struct sk_buff *skb, struct net_device *dev, const unsigned char *at, const struct packet *packet,
     const struct seen *seen)
{
	static const char place[] = "%pS";
	const struct skb_shared_info *shared = (const void *)(skb->head + skb->end);
	__u64 now = bpf_ktime_get_ns();
	struct event *event = begin(now, packet, seen);

	if (!event)
		return;
	event->address = (__u64)skb;
	event->length = skb->len;
	event->ethertype = bpf_ntohs(skb->protocol);
	event->copies = copies_of(skb, shared);
	bpf_core_read(&event->segments, sizeof(event->segments), &shared->gso_segs);
	/* A buffer with lengths in the place of its device was in a socket of UDP: a process is done with it. */
	if (seen->hook == DELIVER || (seen->hook == CONSUME && dev && !KERNEL_ADDRESS(dev))) {
		event->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(event->command, sizeof(event->command));
	}
	if (KERNEL_ADDRESS(dev))
		name_device(event, dev);
	if (seen->location && bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_snprintf))
		bpf_snprintf(event->place, sizeof(event->place), place, (void *)&seen->location, 8);
	__sync_fetch_and_add(&counters.sent, 1);
	bpf_ringbuf_submit(event, 0);
	if (config.data)
		send_bytes(skb, at, now);
}

static __always_inline int match(struct sk_buff *skb, struct packet *packet, struct seen *seen)
{
	int direction = by_filter(&packet->tuple);

	seen->matched_by = BY_TUPLE;
	if (!direction) {
		seen->matched_by = BY_CONNTRACK;
		if (!packet->tunnel)
			direction = by_conntrack(skb->_nfct);
	}
	if (!direction) {
		seen->matched_by = BY_LEARNED;
		direction = by_learned(&packet->tuple);
	}
	if (!direction) {
		seen->matched_by = BY_ADDRESS;
		direction = by_address(skb, packet->fingerprint);
	}
	return direction;
}

/* Read the packet, and that inside of it; return 0 where it cannot be told. */
static __always_inline int
read_packet(const unsigned char *end, const unsigned char *at, __u32 version, struct packet *packet)
{
	struct ip_head ip = {};

	if (!read_ip(at, version, packet, &ip) || !read_transport(packet, &ip, end))
		return 0;
	/* Who follows what carries others' packets sees that. */
	at = by_filter(&packet->tuple) ? 0 : inner_of(packet, &ip, &version);
	if (!at)
		return 1;
	copy4(packet->outer_source, packet->tuple.source);
	copy4(packet->outer_destination, packet->tuple.destination);
	packet->flags = packet->seq = packet->tcp_flags = 0;
	packet->tuple.source_port = packet->tuple.destination_port = 0;
	return read_ip(at, version, packet, &ip) && read_transport(packet, &ip, end);
}

/* Keep the last place of a buffer in mind, or forget it where it ends. */
static __always_inline void track(struct sk_buff *skb, const struct packet *packet, struct seen *seen)
{
	struct tracked now = {.fingerprint = packet->fingerprint, .direction = seen->direction, .netns = seen->netns};
	__u64 address = (__u64)skb;

	if (!seen->netns) { /* in a socket: where it came in */
		struct tracked *before = bpf_map_lookup_elem(&buffers, &address);

		if (before && before->fingerprint == packet->fingerprint)
			seen->netns = now.netns = before->netns;
	}
	if (seen->hook == DROP || seen->hook == CONSUME) {
		bpf_map_delete_elem(&buffers, &address);
		return;
	}
	may_be_tracked[tracked_at(skb)] = 1;
	bpf_map_update_elem(&buffers, &address, &now, 0);
	learn_all(skb->_nfct, packet, seen->direction);
}

/* Tell most packets that are not followed by one read of their headers: a foreign one pays for this, and for
 * by_conntrack, alone. TCP and UDP, whole, without IPv4 options and without a tunnel; of the rest nothing is
 * said. by_conntrack is the caller's: below this frame it would exceed the stack of Linux before 6.8, which
 * counts frames in steps of 32 bytes (kernel/bpf/verifier.c, check_max_stack_depth). */
static __noinline int is_foreign(struct sk_buff *skb, const unsigned char *at, __u32 version)
{
	__u32 words[11]; /* an IP header, and the ports behind it */
	struct tuple tuple = {};
	__u32 ports;

	if (may_be_tracked[tracked_at(skb)] || bpf_probe_read_kernel(words, sizeof(words), at))
		return 0;
	if (version == 4) {
		if (bpf_ntohl(words[0]) >> 24 != 0x45 || words[1] & bpf_htonl(0x3fff))
			return 0;
		tuple.protocol = bpf_ntohl(words[2]) >> 16 & 0xff;
		mapped4(tuple.source, words[3]);
		mapped4(tuple.destination, words[4]);
		ports = words[5];
	} else {
		tuple.protocol = bpf_ntohl(words[1]) >> 8 & 0xff;
		copy4(tuple.source, words + 2);
		copy4(tuple.destination, words + 6);
		ports = words[10];
	}
	tuple.source_port = ports & 0xffff;
	tuple.destination_port = ports >> 16;
	if (tuple.protocol != TCP && (tuple.protocol != UDP || tunnel_at(tuple.destination_port)))
		return 0;
	return !by_filter(&tuple) && !by_learned(&tuple);
}

static __always_inline int
look(struct sk_buff *skb, struct net_device *dev, int receiving, struct seen *seen)
{
	const unsigned char *at;
	struct packet packet;
	__u32 version;
	int known;

	if (!config.filters && !config.all && config.netns != netns_of(skb, dev))
		return 0;
	at = network_of(skb, receiving, &version);
	if (at && !config.all && !config.netns && is_foreign(skb, at, version) && !by_conntrack(skb->_nfct))
		return 0;
	__builtin_memset(&packet, 0, sizeof(packet));
	known = at && read_packet(skb->head + skb->tail, at, version, &packet);
	seen->direction = config.filters && known ? match(skb, &packet, seen) : NONE;
	if (!seen->direction && !config.all && !config.netns)
		return 0;
	seen->netns = netns_of(skb, dev);
	if (seen->direction) {
		track(skb, &packet, seen);
	} else {
		if (!config.all && config.netns != seen->netns)
			return 0;
		seen->matched_by = BY_NAMESPACE;
	}
	send(skb, dev, at, &packet, seen);
	return 0;
}

#define TRANSMITTING 0
#define RECEIVING 1

#endif
