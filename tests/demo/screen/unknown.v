UNKNOWN    pod/client → 1.1.1.1:7777/TCP
           the host side of default/client's eth0 is not known: --node-access
           none: nothing on the node was asked
           by the policies in the cluster it is denied: CiliumNetworkPolicy
           default/client-egress selects pod default/client, and no egress rule
           allows 7777/TCP to 1.1.1.1

Fix     Record a new capture while the packets are lost.
        kubectl ebpfnet capture -o case.zip -n default pod/client --to \
        1.1.1.1:7777 --node-access pod
        For the recorded cluster: choose its --context.
MTU     which packets fit is not known; the sender's are up to 1450

pod default/client  10.44.0.180 → 1.1.1.1:7777
 ~ route       default via 10.44.0.235 dev eth0 (rules not read)
               [17] $ ip route   (pod default/client)
                 1  default via 10.44.0.235 dev eth0 mtu 1450
 ✓ neighbour   10.44.0.235 at be:41:ac:61:67:18
               [19] $ ip neigh   (pod default/client)
                 1  10.44.0.235 dev eth0 lladdr be:41:ac:61:67:18 REACHABLE
 ? link        eth0: its host side is not known: --node-access none: nothing on
               the node was asked
               [16] $ ip addr   (pod default/client)
                 7  8: eth0@if9: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
                    qdisc noqueue state UP group default qlen 1000

Not read, and presumed to be as usual:
  programs at the cgroups of pod default/client (`bpftool cgroup tree`)
  netfilter in pod default/client (by a node pod)
  tc and XDP inside of pod default/client

✓ seen  ~ follows from tables  ? not known  ✗ dropped
[N], record N: kubectl ebpfnet show-record N --from demo:unknown
Recorded 2026-11-30T04:24:21Z; ages are as of then: Cilium 1.18-dev, VXLAN
