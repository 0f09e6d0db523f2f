#!/bin/bash
# Makes the container images the testbed needs as Docker archives in
# $TORTIE_E2E_DIR/images, from what build.sh built and Debian binaries: no registry is
# reached.
set -euo pipefail
T=${TORTIE_E2E_DIR:-/tmp/tortie-e2e}
PAUSE_TAG=3.10.1 COREDNS_TAG=v1.14.3
# One image under the names of all that the suites ask for: agnhost of this Kubernetes, agnhost of the
# network-policy-api suite, and the image whose dig is asked in some specs of names.
E2E=registry.k8s.io/e2e-test-images
AGNHOST="$E2E/agnhost:2.59 $E2E/agnhost:2.45 $E2E/jessie-dnsutils:1.7"

# image OUT NAMES ROOT CMD-JSON ENTRYPOINT-JSON
image() {
	local out=$1 names=$2 root=$3 cmd=$4 entry=$5 d diff
	d=$(mktemp -d "$T/images/.build.XXXXXX")
	mkdir "$d/l"
	tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$root" -cf "$d/l/layer.tar" .
	diff=$(sha256sum "$d/l/layer.tar" | cut -d' ' -f1)
	jq -cn --arg diff "sha256:$diff" --argjson cmd "$cmd" --argjson entry "$entry" '{
		architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z",
		config: {Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], Cmd: $cmd, Entrypoint: $entry, WorkingDir: "/"},
		rootfs: {type: "layers", diff_ids: [$diff]}, history: [{created: "1970-01-01T00:00:00Z", created_by: "images.sh"}]}' >"$d/config.json"
	jq -cn --arg names "$names" '[{Config: "config.json", RepoTags: ($names | split(" ")), Layers: ["l/layer.tar"]}]' >"$d/manifest.json"
	tar -C "$d" -cf "$out.tmp" manifest.json config.json l
	mv "$out.tmp" "$out"
	rm -rf "$d"
	echo "$names: $(($(stat -c %s "$out") >> 20)) MB"
}

# base ROOT: busybox with its applets, users, and the usual folders
base() {
	mkdir -p "$1"/{bin,etc,tmp,usr/bin,usr/local/bin,var,root,uploads}
	chmod 1777 "$1/tmp"
	cp /bin/busybox "$1/bin/busybox"
	local a
	for a in $(/bin/busybox --list); do [ "$a" = busybox ] || ln -sf busybox "$1/bin/$a"; done
	# dash is the shell: busybox's takes its own applets before programs of the same name (nc)
	ldd /bin/dash | grep -o '/[^ )]*' | xargs cp -L --parents -t "$1"
	rm -f "$1/bin/sh"
	cp -L /bin/dash "$1/bin/sh"
	ln -sf sh "$1/bin/bash"
	# what the specs of services and names call, with their libraries
	local b
	for b in curl dig getent; do ldd "/usr/bin/$b" | grep -o '/[^ )]*' | xargs cp -L --parents -t "$1" "/usr/bin/$b"; done
	ldd /usr/bin/nc.openbsd | grep -o '/[^ )]*' | xargs cp -L --parents -t "$1"
	rm -f "$1/bin/nc"
	cp -L /usr/bin/nc.openbsd "$1/bin/nc"
	printf 'root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n' >"$1/etc/passwd"
	printf 'root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n' >"$1/etc/group"
	echo 'hosts: files dns' >"$1/etc/nsswitch.conf"
}

fresh() { [ -z "${FORCE:-}" ] && [ -e "$1" ] && [ "$1" -nt "$2" ] && [ "$1" -nt "$0" ]; }

mkdir -p "$T/images"
o=$T/images/pause.tar
fresh "$o" "$T/bin/pause" || {
	r=$(mktemp -d "$T/images/.root.XXXXXX")
	chmod 755 "$r"
	cp "$T/bin/pause" "$r/pause"
	image "$o" "registry.k8s.io/pause:$PAUSE_TAG" "$r" null '["/pause"]'
	rm -rf "$r"
}
o=$T/images/agnhost.tar
fresh "$o" "$T/bin/agnhost" || {
	r=$(mktemp -d "$T/images/.root.XXXXXX")
	chmod 755 "$r"
	base "$r"
	cp "$T/bin/agnhost" "$r/agnhost"
	k8s=$(cd "$(dirname "$0")/tools" && GOWORK=off go list -m -f '{{.Dir}}' k8s.io/kubernetes)
	cp "$k8s"/test/images/agnhost/porter/localhost.{crt,key} "$r/"
	ln -s agnhost "$r/agnhost-2"
	image "$o" "$AGNHOST" "$r" '["pause"]' '["/agnhost"]'
	rm -rf "$r"
}
o=$T/images/coredns.tar
[ ! -x "$T/bin/coredns" ] || fresh "$o" "$T/bin/coredns" || {
	r=$(mktemp -d "$T/images/.root.XXXXXX")
	chmod 755 "$r"
	cp "$T/bin/coredns" "$r/coredns"
	image "$o" "registry.k8s.io/coredns/coredns:$COREDNS_TAG" "$r" null '["/coredns"]'
	rm -rf "$r"
}
