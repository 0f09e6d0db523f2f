#!/usr/bin/env bash
# Installs what building and testing Tortie need beside Go, on Debian and Ubuntu. Does nothing where it is all there.
#   scripts/deps.sh build|run|test
set -euo pipefail

what=${1:-test}
missing=()
need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}

case $what in
build) ;;
run) need ip iproute2; need nft nftables; need ping iputils-ping ;;
test) need ip iproute2; need nft nftables; need gcc gcc; [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
	need iptables iptables; [ -e /usr/lib/cni/host-local ] || missing+=(containernetworking-plugins)
	need containerd containerd; need runc runc; need curl curl; need python3 python3-minimal; need ping iputils-ping ;;
*) echo "usage: scripts/deps.sh build|run|test" >&2; exit 2 ;;
esac

if ! command -v go >/dev/null 2>&1; then
	echo "Tortie needs Go $(sed -n 's/^go //p' go.mod) or newer: see https://go.dev/doc/install" >&2
	exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing ${missing[*]}" >&2
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
if ! command -v apt-get >/dev/null 2>&1; then
	echo "no apt-get here: install these with your system's package manager, then run the command again: ${missing[*]}" >&2
	exit 1
fi
apt() { DEBIAN_FRONTEND=noninteractive $sudo apt-get "$@" -qq >/dev/null; }
apt install -y --no-install-recommends "${missing[@]}" 2>/dev/null || { apt update; apt install -y --no-install-recommends "${missing[@]}"; }
