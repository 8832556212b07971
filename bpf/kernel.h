/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
 *
 * What our programs read of the kernel: types, and of each structure the members that are read. libbpf moves
 * every access to where this kernel has the member (CO-RE), so order and size here mean nothing. The names are
 * the kernel's: include/linux/skbuff.h, netdevice.h, net/sock.h, net/xdp.h, net/netfilter/nf_conntrack.h,
 * include/uapi/linux/bpf.h.
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;

enum skb_drop_reason { SKB_NOT_DROPPED_YET };

enum bpf_map_type {
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

/* Of one layout since 2.6.20, and compared bytewise in the kernel itself: copied as a whole. */
struct nf_conntrack_tuple {
	__u32 source[4];
	__be16 source_port; /* of ICMP the id */
	__u16 l3num;        /* AF_INET, AF_INET6 */
	__u32 destination[4];
	__be16 destination_port; /* of ICMP type and code */
	__u8 protonum;
	__u8 dir;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	char name[16];
	int ifindex;
	possible_net_t nd_net;
};

struct sock_common {
	possible_net_t skc_net;
};

struct sock {
	struct sock_common __sk_common;
};

struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _nfct;
	unsigned int len;
	__u8 cloned : 1;
	__u8 fclone : 2;
	__be16 protocol;
	__u16 network_header;
	unsigned int tail;
	unsigned int end;
	unsigned char *head;
	unsigned char *data;
};

struct xdp_rxq_info {
	struct net_device *dev;
};

struct xdp_buff {
	unsigned char *data;
	unsigned char *data_end;
	struct xdp_rxq_info *rxq;
};

typedef struct {
	int counter;
} atomic_t;

struct skb_shared_info {
	unsigned short gso_segs;
	atomic_t dataref;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
};

/* Whether a tracepoint has an argument in this kernel: its trace event has a field of that name. */
struct trace_event_raw_kfree_skb {
	enum skb_drop_reason reason;
};

struct trace_event_raw_consume_skb {
	void *location;
};

#pragma clang attribute pop

enum bpf_func_id {
	BPF_FUNC_snprintf = 165,
};

#endif
