#!/bin/bash
# Builds everything the testbed runs, from the Go module proxy and Debian:
# Kubernetes, etcd, CoreDNS, the upstream e2e suite, and the pause and agnhost
# images (Docker archives made from static binaries). Idempotent: an output
# that exists is kept unless FORCE=1.
# usage: build.sh [target...]   (default: all of them)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
T=${TORTIE_E2E_DIR:-/tmp/tortie-e2e}
export CGO_ENABLED=0 GOFLAGS="-p=${BUILD_P:-2} -buildvcs=false -trimpath" GOWORK=off
mkdir -p "$T/bin" "$T/images"
K8S=$(sed -n 's/^.*k8s.io\/kubernetes \(v[0-9.]*\).*$/\1/p' "$here/tools/go.mod" | head -1)
minor=${K8S#v1.}; minor=${minor%%.*}
LD="-s -w"
for p in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	LD="$LD -X $p.gitVersion=$K8S -X $p.gitMajor=1 -X $p.gitMinor=$minor -X $p.gitTreeState=clean -X $p.gitCommit=0000000000000000000000000000000000000000 -X $p.buildDate=1970-01-01T00:00:00Z"
done
all="etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl agnhost pause connect naivepolicy coredns helm ginkgo e2e.test cnp.test images"

out() { # out NAME COMMAND...: builds $T/bin/NAME when absent
	local name=$1 start=$SECONDS
	shift
	if [ -x "$T/bin/$name" ] && [ -z "${FORCE:-}" ]; then return; fi
	nice -n 10 "$@" -o "$T/bin/$name.tmp" ${pkg:+"$pkg"}
	mv "$T/bin/$name.tmp" "$T/bin/$name"
	printf '%-26s %5ss %6s MB\n' "$name" $((SECONDS - start)) $(($(stat -c %s "$T/bin/$name") >> 20)) | tee -a "$T/build-times.txt"
}

deb() { # Debian packages the testbed needs
	local need=() p
	for p in containerd runc containernetworking-plugins iptables nftables ipset conntrack busybox-static openssl jq curl bind9-dnsutils netcat-openbsd iproute2 util-linux; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || need+=("$p")
	done
	[ ${#need[@]} = 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${need[@]}" >"$T/apt.log" 2>&1
}

# cnp: the CRD of ClusterNetworkPolicy, and a copy of its conformance suite without the tries of SCTP (two lines each)
# in specs that are of other protocols, too. Specs of SCTP alone stay as they are: tools/cnp skips them.
cnp() {
	local dir f
	dir=$(go list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)
	rm -rf "$T/cnp"
	mkdir -p "$T/cnp"
	cp "$dir/config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml" "$T/cnp/crd.yaml"
	cp -r --no-preserve=mode "$dir" "$T/cnp/module"
	for f in "$T"/cnp/module/conformance/tests/*.go; do
		case $f in *sctp-rules.go) continue ;; esac
		awk '/PokeServer\(.*"sctp",$/ {getline; next} {print}' "$f" >"$f.tmp"
		mv "$f.tmp" "$f"
	done
	cp go.mod "$T/cnp/go.mod"
	cp go.sum "$T/cnp/go.sum"
	go mod edit -replace "sigs.k8s.io/network-policy-api=$T/cnp/module" "$T/cnp/go.mod"
}

build() {
	local t=$1 pkg
	case $t in
	etcd) cd "$here/tools"; pkg=go.etcd.io/etcd/server/v3 out etcd go build -ldflags "-s -w" ;;
	kube*) cd "$here/tools"; pkg=k8s.io/kubernetes/cmd/$t out "$t" go build -ldflags "$LD" ;;
	agnhost) cd "$here/tools"; pkg=k8s.io/kubernetes/test/images/agnhost out agnhost go build -ldflags "-s -w" ;;
	pause) cd "$here/tools"; pkg=./pause out pause go build -ldflags "-s -w" ;;
	connect | naivepolicy) cd "$here/tools"; pkg=./$t out "$t" go build -ldflags "-s -w" ;;
	ginkgo) cd "$here/tools"; pkg=github.com/onsi/ginkgo/v2/ginkgo out ginkgo go build -ldflags "-s -w" ;;
	coredns) cd "$here/tools/coredns"; pkg=. out coredns go build -ldflags "-s -w" ;;
	helm) cd "$here/tools/helm"; pkg=helm.sh/helm/v4/cmd/helm out helm go build -ldflags "-s -w" ;;
	e2e.test) cd "$here/tools"; pkg=k8s.io/kubernetes/test/e2e out e2e.test go test -c -vet=off -ldflags "$LD" ;;
	cnp.test) cd "$here/tools/cnp"; [ -e "$T/cnp/crd.yaml" ] && [ -z "${FORCE:-}" ] || cnp; pkg=. out cnp.test go test -c -vet=off -modfile "$T/cnp/go.mod" -ldflags "-s -w" ;;
	images) "$here/images.sh" ;;
	*) echo "build.sh: unknown target $t" >&2; exit 2 ;;
	esac
}

main() {
	local t
	deb
	for t in ${*:-$all}; do build "$t"; done
}
# one line, so that editing this file does not upset a running copy
main "$@"; exit
