#!/usr/bin/env bash
# tests/fresh.sh SUITE COMMAND: run a shell command in a clone of HEAD, on a bare Debian of that suite.
#
# The Debian holds git, make, python3, ca-certificates and procps, and what those need. It is made
# once by debootstrap, and again after a change to this file; what a command installs in it lasts
# until the next run, which starts from the bare one. Kernel, network, package sources and
# certificates are this machine's, and so is the lab's cache (Kubernetes is built once a machine).
# Mounts, processes and named network namespaces lie in namespaces that end with the command; a lab
# that a command left up is taken down. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:?usage: tests/fresh.sh SUITE COMMAND} command=${2:?usage: tests/fresh.sh SUITE COMMAND}
cache=${EBPFNET_FRESH_CACHE:-/var/cache/kubectl-ebpfnet-fresh}
lab_cache=${EBPFNET_LAB_CACHE:-/var/cache/kubectl-ebpfnet}
bare=$cache/$suite-$(cksum <"$0" | cut -d ' ' -f 1).tar root=$cache/$suite

mkdir -p "$cache" "$lab_cache"
exec 9>"$cache/$suite.lock"
flock --nonblock 9 || { echo "fresh: waiting for another run on $suite" >&2; flock 9; }

rm -rf "$root"
if [ ! -e "$bare" ]; then
    echo "fresh: making a bare $suite" >&2
    mirror=$(python3 -c 'from tests.lab.cluster.image import debian; print(debian.mirror())')
    unshare --mount debootstrap --variant=minbase --include=ca-certificates,git,make,python3,procps \
        "$suite" "$root" "$mirror" >"$cache/$suite.log" 2>&1 || { tail "$cache/$suite.log" >&2; exit 1; }
    rm -f "$cache/$suite"-*.tar "$root"/var/cache/apt/archives/*.deb
    tar --create --file="$bare.new" --directory="$root" .
    mv "$bare.new" "$bare"
else
    mkdir "$root"
    tar --extract --file="$bare" --directory="$root"
fi

# How this machine reaches the world.
apt-config dump | grep -E '^Acquire::(https?|Retries|Check)' >"$root/etc/apt/apt.conf.d/99machine" || true
for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt /etc/pip.conf /root/.config/pip/pip.conf; do
    [ ! -e "$file" ] || install -D -m 644 "$file" "$root$file"
done
mapfile -t settings < <(env | grep -iE '^(SSL_CERT_|PIP_(CERT|COMPILE|INDEX|EXTRA|TRUSTED|DEFAULT|DISABLE)|REQUESTS_CA_|CURL_CA_|GIT_SSL_|https?_proxy=|no_proxy=)')

git clone -q "file://$PWD" "$root/root/checkout"
mkdir -p "$root/machine" "$root/var/cache/kubectl-ebpfnet"

# pivot_root, not chroot alone: what enters this mount namespace later has to find this root too.
# The first process of the namespace waits for the command, so an interrupt does not end it.
exec unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    root=$1 lab_cache=$2 command=$3; shift 3
    mount --bind "$root" "$root"; cd "$root"
    mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev
    mount -t tmpfs tmpfs run; mount -t tmpfs tmpfs tmp
    mount --bind "$lab_cache" var/cache/kubectl-ebpfnet
    pivot_root . machine
    exec 9>&- chroot . env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 "$@" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -c "
            umount -l /machine; cd /root/checkout; code=0
            bash -c \"\$1\" || code=\$?
            [ ! -e /run/kubectl-ebpfnet-lab ] || make -s lab-down || true
            exit \$code" bash "$command"' bash "$root" "$lab_cache" "$command" "${settings[@]}"
