// Our stand-ins for Cilium's programs at a node's own devices, in Cilium's names.
// They count packets and let them pass: the lab's nodes route and masquerade in the kernel.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct metrics_key {
	__u8 reason, dir;
	__u16 line;
	__u8 file, pad[3];
};

struct metrics_value {
	__u64 count, bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct metrics_key);
	__type(value, struct metrics_value);
	__uint(max_entries, 64);
} cilium_metrics SEC(".maps");

static __always_inline int pass(struct __sk_buff *skb, __u8 dir)
{
	struct metrics_key key = {.dir = dir};
	struct metrics_value first = {.count = 1, .bytes = skb->len}, *value;

	value = bpf_map_lookup_elem(&cilium_metrics, &key);
	if (value) {
		value->count++;
		value->bytes += skb->len;
	} else {
		bpf_map_update_elem(&cilium_metrics, &key, &first, BPF_NOEXIST);
	}
	return TC_ACT_OK;
}

SEC("tc") int cil_from_netdev(struct __sk_buff *skb) { return pass(skb, 1); }
SEC("tc") int cil_to_netdev(struct __sk_buff *skb) { return pass(skb, 2); }
SEC("tc") int cil_from_host(struct __sk_buff *skb) { return pass(skb, 2); }
SEC("tc") int cil_to_host(struct __sk_buff *skb) { return pass(skb, 1); }

char _license[] SEC("license") = "Dual BSD/GPL";
