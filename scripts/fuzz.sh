#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for the given time (default 30s).
set -euo pipefail
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "== $pkg $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${1:-30s}" "$pkg"
	done
done
