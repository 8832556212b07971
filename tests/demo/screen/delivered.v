DELIVERED  pod/client → 1.1.1.1:80/TCP
           answered and closed 9s before the record (Cilium CT, node2)
           it leaves the cluster as 172.31.7.12:52922

MTU     largest packet that fits: 1500 bytes, limited by lxc67713070a39f on
        node2; the sender's are up to 1450. Back: largest packet that fits: 1500
        bytes, limited by eth0 on node2; not read: what address 1.1.1.1 sends

pod default/client        10.44.0.180:52922 → 1.1.1.1:80
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
 ✓ conntrack   Cilium, egress, replies seen, expires in 1s
               [42] $ cilium-dbg bpf ct list global -d   (cilium-agent on node2)
                 12  TCP OUT 10.44.0.180:52922 -> 1.1.1.1:80 expires=13394
                     (remaining: 1 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                     LastRxReport=13384 TxFlagsSeen=0x1b LastTxReport=13384
                     Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0
                     SourceSecurityID=5574 BackendID=0
 ✓ policy      egress to world:80/TCP allowed by cnp default/client-egress
               [43] $ cilium-dbg bpf policy get --all -o json   (cilium-agent on
                    node2)
                 40  {
                 41    "ProxyPortNetwork": 0,
                 42    "Flags": 192,
                 43    "AuthRequirement": 0,
                 44    "ProxyPortPriority": 0,
                 45    "Pad1": 0,
                 46    "Pad2": 0,
                 47    "Packets": 14,
                 48    "Bytes": 1082,
                 49    "Key": {
                 50      "Prefixlen": 64,
                 51      "Identity": 2,
                 52      "TrafficDirection": 1,
                 53      "Nexthdr": 6,
                 54      "DestPortNetwork": 20480
                 55    }
                 56  },
               [7] $ get ciliumnetworkpolicies -A   (API server)
                 {"toEntities": ["world"], "toPorts": [{"ports": [{"port": "80",
                 "protocol": "TCP"}]}]}
               [42]
                 12  TCP OUT 10.44.0.180:52922 -> 1.1.1.1:80 expires=13394
                     (remaining: 1 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                     LastRxReport=13384 TxFlagsSeen=0x1b LastTxReport=13384
                     Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0
                     SourceSecurityID=5574 BackendID=0
 ~ route       default via 172.31.7.200 dev eth0 (BPF host routing)
               [36] $ ip -j route show table all   (cilium-agent on node2)
                 {"dst": "default", "gateway": "172.31.7.200", "dev": "eth0",
                 "flags": []}
               [52] $ iptables-save -c   (cilium-agent on node2)
                 49  [0:0] -A CILIUM_FORWARD -i lxc+ -m comment --comment
                     "cilium: cluster->any on lxc+ forward accept" -j ACCEPT
               [42]
                 8  TCP OUT 10.44.0.180:37482 -> 1.1.1.1:80 expires=13379
                    (remaining: -14 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13369 TxFlagsSeen=0x1b LastTxReport=13369
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0
                    SourceSecurityID=5574 BackendID=0
 ✓ bpf         cil_to_netdev at eth0 (tcx egress)
               [39]
                 {"devname": "eth0", "ifindex": 2, "kind": "tcx/egress", "name":
                 "cil_to_netdev", "prog_id": 367119, "prog_flags": [],
                 "link_id": 4017, "link_flags": []}
               [40]
                 {"id": 367119, "type": "sched_cls", "name": "cil_to_netdev",
                 "tag": "8f206de76a0a0a07", "loaded_at": 1796012602}
 ✓ snat        by Cilium  172.31.7.12:52922 → 1.1.1.1:80
               [29] $ cilium-dbg bpf nat list   (cilium-agent on node2)
                 7  TCP OUT 10.44.0.180:52922 -> 1.1.1.1:80 XLATE_SRC
                    172.31.7.12:52922 Created=9sec ago NeedsCT=0
 ✓ neighbour   172.31.7.200 at a2:c1:6b:49:b6:21, REACHABLE
               [37] $ ip -j neigh   (cilium-agent on node2)
                 {"dst": "172.31.7.200", "dev": "eth0", "lladdr":
                 "a2:c1:6b:49:b6:21", "managed": null, "extern_learn": null,
                 "state": ["REACHABLE"]}
outside the cluster
 ✓ delivery    replies came back
               [42]
                 12  TCP OUT 10.44.0.180:52922 -> 1.1.1.1:80 expires=13394
                     (remaining: 1 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                     LastRxReport=13384 TxFlagsSeen=0x1b LastTxReport=13384
                     Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0
                     SourceSecurityID=5574 BackendID=0
 ~ way back    the same nodes and devices

flows tracked on node2
   10.44.0.180:52922 → 1.1.1.1:80 as 172.31.7.12:52922, answered 9s ago
   10.44.0.180:37482 → 1.1.1.1:80 as 172.31.7.12:37482, answered 24s ago
   1 more (-o wide)

✓ seen  ~ follows from tables  ? not known  ✗ dropped
[N], record N: kubectl ebpfnet show-record N --from demo
Recorded 2026-11-30T04:24:00Z; ages are as of then: Cilium 1.18-dev, VXLAN;
hubble's log and sockets as `path` filters them
