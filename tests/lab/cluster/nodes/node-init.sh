#!/bin/bash
# The first process of a node: makes the node's own mounts, then runs containerd and the kubelet.
# Runs inside `nsenter --net=… unshare --mount --uts --pid --fork --mount-proc --kill-child`.
# Arguments: node name, its state folder, then the kubelet's command.
set -eu
name=$1 state=$2
shift 2
hostname "$name"
mount --make-rprivate /
# A fresh sysfs shows this namespace's devices; the machine's cgroups are bound back over it.
mkdir -p "$state/cgroup"
mount --rbind /sys/fs/cgroup "$state/cgroup"
umount -l /sys/fs/bpf 2>/dev/null || true
mount -t sysfs sysfs /sys
mount --rbind "$state/cgroup" /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount --make-shared /sys/fs/bpf
# Folders that two nodes must not share.
umount -l /run/netns 2>/dev/null || true
for folder in /run/netns /var/log; do
    mkdir -p "$folder" "$state$folder"
    mount --bind "$state$folder" "$folder"
done
mount --make-shared /run/netns
containerd --config "$state/containerd.toml" >>"$state/containerd.log" 2>&1 &
for _ in $(seq 300); do
    [ -S "$state/containerd.sock" ] && break
    sleep 0.1
done
PYTHONPATH=$EBL_ROOT "$EBL_PYTHON" -m tests.lab.cluster.datapath.bpf "$name"
touch "$state/ready"
while [ ! -e "$state/images-loaded" ]; do sleep 0.1; done
"$@" >>"$state/kubelet.log" 2>&1 &
if [ -x "$state/kube-proxy.sh" ]; then "$state/kube-proxy.sh" >>"$state/kube-proxy.log" 2>&1 & fi
wait
