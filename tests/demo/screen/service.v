DELIVERED  pod/client → svc/web 10.97.68.63:80/TCP
           answered and closed 8s before the record (Cilium CT, node2)
           delivered to pod default/web-7c469c57c9-8p62k at 10.44.1.71:8080

MTU     largest packet that fits: 1450 bytes, limited by eth0 on node2; the
        sender's are up to 1450. Back: largest packet that fits: 1450 bytes,
        limited by eth0 on node1; the sender's are up to 1450

pod default/client                  10.44.0.180:42670 → 10.97.68.63:80
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
 ✓ lb          svc default/web at lxc67713070a39f, packet by packet
               10.44.0.180:42670 → 10.44.1.71:8080
               [31] $ cilium-dbg bpf lb list   (cilium-agent on node2)
                 43  10.97.68.63:80/TCP (0)        0.0.0.0:0 (3) (0) [ClusterIP,
                     non-routable]
                 56  10.97.68.63:80/TCP (1)        10.44.1.71:8080/TCP (3) (1)
               [44] $ cilium-dbg service list -o json   (cilium-agent on node2)
                 {"ip": "10.97.68.63", "port": 80, "protocol": "TCP", "scope":
                 "external"}
               [42] $ cilium-dbg bpf ct list global -d   (cilium-agent on node2)
                 2  TCP OUT 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=3
                    SourceSecurityID=5574 BackendID=0
               [42]
                 7  TCP SVC 10.44.0.180:42670 -> 10.97.68.63:80 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x00
                    LastRxReport=0 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=3
                    SourceSecurityID=0 BackendID=6
 ✓ conntrack   Cilium, egress, replies seen, expires in 2s
               [42]
                 2  TCP OUT 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=3
                    SourceSecurityID=5574 BackendID=0
 ✓ policy      egress to app=web:8080/TCP allowed by cnp default/client-egress
               [43] $ cilium-dbg bpf policy get --all -o json   (cilium-agent on
                    node2)
                  91  {
                  92    "ProxyPortNetwork": 0,
                  93    "Flags": 0,
                  94    "AuthRequirement": 0,
                  95    "ProxyPortPriority": 0,
                  96    "Pad1": 0,
                  97    "Pad2": 0,
                  98    "Packets": 21,
                  99    "Bytes": 1663,
                 100    "Key": {
                 101      "Prefixlen": 40,
                 102      "Identity": 12636,
                 103      "TrafficDirection": 1,
                 104      "Nexthdr": 0,
                 105      "DestPortNetwork": 0
                 106    }
                 107  },
               [7] $ get ciliumnetworkpolicies -A   (API server)
                 {"toEndpoints": [{"matchLabels": {"app": "web"}}]}
               [42]
                 2  TCP OUT 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=3
                    SourceSecurityID=5574 BackendID=0
 ~ route       ipcache: behind 172.31.7.11 (node1)
               [30] $ cilium-dbg bpf ipcache list   (cilium-agent on node2)
                 4  10.44.1.71/32       identity=12636 encryptkey=0
                    tunnelendpoint=172.31.7.11 flags=hastunnel
 ✓ bpf         cil_to_overlay at cilium_vxlan (tcx egress)
               [39]
                 {"devname": "cilium_vxlan", "ifindex": 5, "kind": "tcx/egress",
                 "name": "cil_to_overlay", "prog_id": 367032, "prog_flags": [],
                 "link_id": 4004, "link_flags": []}
               [40]
                 {"id": 367032, "type": "sched_cls", "name": "cil_to_overlay",
                 "tag": "f188d85126906536", "loaded_at": 1796012599}
 ✓ tunnel      cilium_vxlan (VXLAN) to 172.31.7.11 (node1)
               outer 172.31.7.12 → 172.31.7.11:8472
               [35]
                 {"ifindex": 5, "ifname": "cilium_vxlan", "flags": ["BROADCAST",
                 "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500, "linkinfo":
                 {"info_kind": "vxlan", "info_data": {"external": true, "id": 0,
                 "port_range": {"low": 0, "high": 0}, "port": 8472, "learning":
                 false, "ttl": 0, "df": "unset", "ageing": 300, "udp_csum":
                 true, "udp_zero_csum6_tx": false, "udp_zero_csum6_rx": false}}}
               [102] $ hubble observe --timeout 1s -o jsonpb --since 5m --last
                     1000 -t drop -t trace -t policy-verdict   (cilium-agent on
                     node2)
                 79  {"time": "2026-11-30T04:23:52.999069681Z", "verdict":
                     "FORWARDED", "traffic_direction": "EGRESS", "IP":
                     {"source": "10.44.0.180", "destination": "10.44.1.71",
                     "ipVersion": "IPv4"}, "l4": {"TCP": {"source_port": 42670,
                     "destination_port": 8080, "flags": {"FIN": true, "ACK":
                     true}}}, "node_name": "node2"}
 ~ route       outer packet: 172.31.7.0/24 dev eth0
               [36] $ ip -j route show table all   (cilium-agent on node2)
                 {"dst": "172.31.7.0/24", "dev": "eth0", "protocol": "kernel",
                 "scope": "link", "prefsrc": "172.31.7.12", "flags": []}
 ✓ bpf         cil_to_netdev at eth0 (tcx egress)
               [39]
                 {"devname": "eth0", "ifindex": 2, "kind": "tcx/egress", "name":
                 "cil_to_netdev", "prog_id": 367119, "prog_flags": [],
                 "link_id": 4017, "link_flags": []}
               [40]
                 {"id": 367119, "type": "sched_cls", "name": "cil_to_netdev",
                 "tag": "8f206de76a0a0a07", "loaded_at": 1796012602}
 ✓ neighbour   172.31.7.11 at 3a:38:29:43:a6:be, REACHABLE
               [37] $ ip -j neigh   (cilium-agent on node2)
                 {"dst": "172.31.7.11", "dev": "eth0", "lladdr":
                 "3a:38:29:43:a6:be", "managed": null, "extern_learn": null,
                 "state": ["REACHABLE"]}
 ~ wire        to node1 in the tunnel
node1
 ✓ bpf         cil_from_netdev at eth0 (tcx ingress)
               [76] $ bpftool -j net show   (cilium-agent on node1)
                 {"devname": "eth0", "ifindex": 2, "kind": "tcx/ingress",
                 "name": "cil_from_netdev", "prog_id": 367213, "prog_flags": [],
                 "link_id": 4014, "link_flags": []}
               [77] $ bpftool -j prog show   (cilium-agent on node1)
                 {"id": 367213, "type": "sched_cls", "name": "cil_from_netdev",
                 "tag": "4a74df7ea919060a", "loaded_at": 1796012605}
 ~ tunnel      out of cilium_vxlan  10.44.0.180:42670 → 10.44.1.71:8080
               [72] $ ip -j -d link   (cilium-agent on node1)
                 {"ifindex": 5, "ifname": "cilium_vxlan", "flags": ["BROADCAST",
                 "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500, "linkinfo":
                 {"info_kind": "vxlan", "info_data": {"external": true, "id": 0,
                 "port_range": {"low": 0, "high": 0}, "port": 8472, "learning":
                 false, "ttl": 0, "df": "unset", "ageing": 300, "udp_csum":
                 true, "udp_zero_csum6_tx": false, "udp_zero_csum6_rx": false}}}
 ✓ bpf         cil_from_overlay at cilium_vxlan (tcx ingress)
               [76]
                 {"devname": "cilium_vxlan", "ifindex": 5, "kind":
                 "tcx/ingress", "name": "cil_from_overlay", "prog_id": 367044,
                 "prog_flags": [], "link_id": 4005, "link_flags": []}
               [77]
                 {"id": 367044, "type": "sched_cls", "name": "cil_from_overlay",
                 "tag": "57161a7cf7213a3c", "loaded_at": 1796012599}
 ✓ policy      ingress from app=client:8080/TCP allowed
               [80] $ cilium-dbg bpf policy get --all -o json   (cilium-agent on
                    node1)
                 160  {
                 161    "ProxyPortNetwork": 0,
                 162    "Flags": 0,
                 163    "AuthRequirement": 0,
                 164    "ProxyPortPriority": 0,
                 165    "Pad1": 0,
                 166    "Pad2": 0,
                 167    "Packets": 21,
                 168    "Bytes": 1663,
                 169    "Key": {
                 170      "Prefixlen": 40,
                 171      "Identity": 0,
                 172      "TrafficDirection": 0,
                 173      "Nexthdr": 0,
                 174      "DestPortNetwork": 0
                 175    }
                 176  },
               [79] $ cilium-dbg bpf ct list global -d   (cilium-agent on node1)
                 3  TCP IN 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0413 [ RxClosing TxClosing SeenNonSyn FromTunnel ]
                    RevNAT=0 SourceSecurityID=5574 BackendID=0
 ✓ conntrack   Cilium, ingress, replies seen
               [79]
                 3  TCP IN 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0413 [ RxClosing TxClosing SeenNonSyn FromTunnel ]
                    RevNAT=0 SourceSecurityID=5574 BackendID=0
 ~ link        veth lxc11065d728395 → the pod
               [72]
                 {"ifindex": 11, "ifname": "lxc11065d728395", "flags":
                 ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500,
                 "operstate": "UP", "address": "1a:8b:2a:93:e7:98"}
pod default/web-7c469c57c9-8p62k
 ✓ delivery    it arrives, and was answered
               [42]
                 2  TCP OUT 10.44.0.180:42670 -> 10.44.1.71:8080 expires=13395
                    (remaining: 2 sec(s)) Packets=0 Bytes=0 RxFlagsSeen=0x1b
                    LastRxReport=13385 TxFlagsSeen=0x1b LastTxReport=13385
                    Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=3
                    SourceSecurityID=5574 BackendID=0
 ✓ socket      pod default/web-7c469c57c9-8p62k listens on TCP [::]:8080
               [105] $ awk
                     FNR<2002&&(FNR==1||$4=="0A"){print(FILENAME":
                     "$0);next}{nextfile} /proc/net/tcp /proc/net/tcp6   (pod
                     default/web-7c469c57c9-8p62k)
                 3  /proc/net/tcp6:   0: 00000000000000000000000000000000:1F90
                    00000000000000000000000000000000:0000 0A 00000000:00000000
                    00:00000000 00000000     0        0 3045356 1
                    000000008a1ac73d 100 0 0 10 0
 ~ way back    the same nodes and devices

flows tracked on node2
   10.44.0.180:42670 → 10.97.68.63:80 to 10.44.1.71:8080, answered 8s ago
   10.44.0.180:51320 → 10.97.68.63:80 to 10.44.1.71:8080, answered 23s ago
flows tracked on node1
   10.44.0.180:42670 → 10.44.1.71:8080, answered 8s ago

✓ seen  ~ follows from tables  ? not known  ✗ dropped
[N], record N: kubectl ebpfnet show-record N --from demo
Recorded 2026-11-30T04:24:00Z; ages are as of then: Cilium 1.18-dev, VXLAN;
hubble's log and sockets as `path` filters them
