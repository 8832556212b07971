DROPPED    pod/client → 1.1.1.1:7777/TCP
           at node2, by the egress policy of pod/client

Cause   CiliumNetworkPolicy default/client-egress selects pod default/client,
        and no egress rule allows 7777/TCP to 1.1.1.1; the nearest is egress[0]
        (to world at 80/TCP)
Seen    3 drops “Policy denied” (hubble, node2), the newest 3s before hubble was
        asked
Fix     If it may pass, add 7777/TCP to egress[0] of CiliumNetworkPolicy
        default/client-egress, or a rule of its own.
        kubectl edit ciliumnetworkpolicy -n default client-egress
        For the recorded cluster: choose its --context.

pod default/client  10.44.0.180 → 1.1.1.1:7777
 ~ route       default via 10.44.0.235 dev eth0
               [16] $ ip route   (pod default/client)
                 1  default via 10.44.0.235 dev eth0 mtu 1450
 ✓ neighbour   10.44.0.235 at be:41:ac:61:67:18
               [18] $ ip neigh   (pod default/client)
                 1  10.44.0.235 dev eth0 lladdr be:41:ac:61:67:18 REACHABLE
 ~ link        veth eth0 ↔ lxc67713070a39f
               [15] $ ip addr   (pod default/client)
                 7  8: eth0@if9: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
                    qdisc noqueue state UP group default qlen 1000
               [35] $ ip -j -d link   (cilium-agent on node2)
                 {"ifindex": 9, "ifname": "lxc67713070a39f", "link_index": 8,
                 "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu":
                 1500, "operstate": "UP", "address": "be:41:ac:61:67:18"}
               [28] $ cilium-dbg endpoint list -o json   (cilium-agent on node2)
                 {"addressing": [{"ipv4": "10.44.0.180", "ipv4-pool-name":
                 "default"}], "container-interface-name": "eth0", "host-mac":
                 "be:41:ac:61:67:18", "interface-index": 9, "interface-name":
                 "lxc67713070a39f", "mac": "e6:1d:45:2b:55:34"}
node2
 ✓ bpf         cil_from_container at lxc67713070a39f (tcx ingress)
               [39] $ bpftool -j net show   (cilium-agent on node2)
                 {"devname": "lxc67713070a39f", "ifindex": 9, "kind":
                 "tcx/ingress", "name": "cil_from_container", "prog_id": 367223,
                 "prog_flags": [], "link_id": 4019, "link_flags": []}
               [40] $ bpftool -j prog show   (cilium-agent on node2)
                 {"id": 367223, "type": "sched_cls", "name":
                 "cil_from_container", "tag": "a07d0ceedcc31fe1", "loaded_at":
                 1796012613}
 ✗ policy      egress to world:7777/TCP is allowed by no rule
               [43] $ cilium-dbg bpf policy get --all -o json   (cilium-agent on
                    node2)
                 {"ProxyPortNetwork": 0, "Flags": 192, "AuthRequirement": 0,
                 "ProxyPortPriority": 0, "Pad1": 0, "Pad2": 0, "Packets": 14,
                 "Bytes": 1082, "Key": {"Prefixlen": 64, "Identity": 2,
                 "TrafficDirection": 1, "Nexthdr": 6, "DestPortNetwork": 20480}}
                 {"ProxyPortNetwork": 0, "Flags": 192, "AuthRequirement": 0,
                 "ProxyPortPriority": 0, "Pad1": 0, "Pad2": 0, "Packets":
                 18446744073709551615, "Bytes": 18446744073709551615, "Key":
                 {"Prefixlen": 64, "Identity": 9, "TrafficDirection": 1,
                 "Nexthdr": 6, "DestPortNetwork": 20480}}
                 {"ProxyPortNetwork": 0, "Flags": 192, "AuthRequirement": 0,
                 "ProxyPortPriority": 0, "Pad1": 0, "Pad2": 0, "Packets":
                 18446744073709551615, "Bytes": 18446744073709551615, "Key":
                 {"Prefixlen": 64, "Identity": 10, "TrafficDirection": 1,
                 "Nexthdr": 6, "DestPortNetwork": 20480}}
                 {"ProxyPortNetwork": 0, "Flags": 0, "AuthRequirement": 0,
                 "ProxyPortPriority": 0, "Pad1": 0, "Pad2": 0, "Packets": 21,
                 "Bytes": 1663, "Key": {"Prefixlen": 40, "Identity": 12636,
                 "TrafficDirection": 1, "Nexthdr": 0, "DestPortNetwork": 0}}
                 {"ProxyPortNetwork": 0, "Flags": 192, "AuthRequirement": 0,
                 "ProxyPortPriority": 0, "Pad1": 0, "Pad2": 0, "Packets":
                 18446744073709551615, "Bytes": 18446744073709551615, "Key":
                 {"Prefixlen": 64, "Identity": 16777217, "TrafficDirection": 1,
                 "Nexthdr": 6, "DestPortNetwork": 20480}}
               [10] $ get ciliumnetworkpolicies -A   (API server)
                 {"toEntities": ["world"], "toPorts": [{"ports": [{"port": "80",
                 "protocol": "TCP"}]}]}
               [102] $ hubble observe --timeout 1s -o jsonpb --since 5m --last
                     1000 -t drop -t trace -t policy-verdict   (cilium-agent on
                     node2)
                 102  {"time": "2026-11-30T04:24:13.911501664Z", "verdict":
                      "DROPPED", "drop_reason_desc": "POLICY_DENIED",
                      "traffic_direction": "EGRESS", "IP": {"source":
                      "10.44.0.180", "destination": "1.1.1.1", "ipVersion":
                      "IPv4"}, "l4": {"TCP": {"source_port": 51278,
                      "destination_port": 7777, "flags": {"SYN": true}}},
                      "node_name": "node2"}

✓ seen  ~ follows from tables  ? not known  ✗ dropped
[N], record N: kubectl ebpfnet show-record N --from demo:dropped
Recorded 2026-11-30T04:24:17Z; ages are as of then: Cilium 1.18-dev, VXLAN;
hubble's log and sockets as `path` filters them
