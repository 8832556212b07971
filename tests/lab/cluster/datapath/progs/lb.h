// Load-balancing of ClusterIPs at the pod's veth, packet by packet, as Cilium does it for pods
// where it does not replace kube-proxy. Layouts: Cilium bpf/lib/lb.h (cilium-facts 3.5).
#define CT_SERVICE 4
#define DROP_NO_BACKEND 158

struct lb_key {
	__be32 address;
	__be16 port;
	__u16 slot; // 0 is the frontend itself
	__u8 protocol, scope, pad[2];
};

struct lb_service {
	__u32 backend_id;
	__u16 count;
	__be16 rev_nat_index;
	__u8 flags, flags2;
	__u16 quarantined;
};

struct lb_backend {
	__be32 address;
	__be16 port;
	__u8 protocol, flags;
	__u16 cluster_id;
	__u8 zone, pad;
};

struct lb_frontend {
	__be32 address;
	__be16 port;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct lb_key);
	__type(value, struct lb_service);
	__uint(max_entries, 256);
} cilium_lb4_serv SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct lb_backend);
	__uint(max_entries, 256);
} cilium_lb4_back SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __be16);
	__type(value, struct lb_frontend);
	__uint(max_entries, 256);
} cilium_lb4_rev SEC(".maps");

// Write one side's address and port into the packet; at: offsets of the address and the port.
static __always_inline void rewrite(struct __sk_buff *skb, const struct packet *p, __u32 address_at,
				    __u32 port_at, __be32 old_ip, __be32 ip, __be16 old_port,
				    __be16 port)
{
	__u32 sum = ETH_HLEN + p->header + (p->protocol == IPPROTO_TCP ? 16 : 6);
	__u64 udp = p->protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;

	bpf_l3_csum_replace(skb, ETH_HLEN + 10, old_ip, ip, 4);
	bpf_l4_csum_replace(skb, sum, old_ip, ip, BPF_F_PSEUDO_HDR | udp | 4);
	bpf_l4_csum_replace(skb, sum, old_port, port, udp | 2);
	bpf_skb_store_bytes(skb, address_at, &ip, 4, 0);
	bpf_skb_store_bytes(skb, port_at, &port, 2, 0);
}

// A frontend's entry sees only one way, so that one end of it closes both (as Cilium's does).
static __always_inline void touch_service(struct ct_entry *e, const struct packet *p)
{
	touch(e, p, 0, 0);
	if (e->flags & FLAG_TX_CLOSING) {
		e->flags |= FLAG_RX_CLOSING;
		e->lifetime = lifetime(p, e->flags);
	}
}

// Translate a packet to a frontend into one to a backend.
// Returns the reverse NAT index, 0 when it goes to no frontend, -1 when there is no backend.
static __always_inline int balance(struct __sk_buff *skb, struct packet *p)
{
	struct lb_key key = {.address = p->daddr, .port = p->dport, .protocol = p->protocol};
	struct ct_key tracked = {.daddr = p->daddr, .saddr = p->saddr, .dport = p->sport,
				 .sport = p->dport, .nexthdr = p->protocol, .flags = CT_SERVICE};
	struct lb_service *service;
	struct lb_backend *backend;
	struct ct_entry *entry;
	__u16 index;
	__u32 id;

	if (p->protocol == IPPROTO_ICMP)
		return 0;
	service = bpf_map_lookup_elem(&cilium_lb4_serv, &key);
	if (!service)
		return 0;
	index = service->rev_nat_index;
	entry = bpf_map_lookup_elem(table(p), &tracked);
	id = entry ? entry->nat_addr[1] : 0;
	backend = bpf_map_lookup_elem(&cilium_lb4_back, &id);
	if (!backend) {
		if (!service->count)
			return -1;
		key.slot = bpf_get_hash_recalc(skb) % service->count + 1;
		service = bpf_map_lookup_elem(&cilium_lb4_serv, &key);
		if (!service)
			return -1;
		id = service->backend_id;
		backend = bpf_map_lookup_elem(&cilium_lb4_back, &id);
		if (!backend)
			return -1;
	}
	if (entry) {
		entry->nat_addr[1] = id;
		touch_service(entry, p);
	} else {
		struct ct_entry first = {.nat_addr = {0, id}, .rev_nat_index = index};

		touch_service(&first, p);
		bpf_map_update_elem(table(p), &tracked, &first, BPF_ANY);
	}
	rewrite(skb, p, ETH_HLEN + 16, ETH_HLEN + p->header + 2, p->daddr, backend->address,
		p->dport, backend->port);
	p->daddr = backend->address;
	p->dport = backend->port;
	return index;
}

// Give an answer the frontend's address and port back.
static __always_inline void unbalance(struct __sk_buff *skb, const struct packet *p, __be16 index)
{
	struct lb_frontend *frontend = bpf_map_lookup_elem(&cilium_lb4_rev, &index);

	if (frontend)
		rewrite(skb, p, ETH_HLEN + 12, ETH_HLEN + p->header, p->saddr,
			frontend->address, p->sport, frontend->port);
}
