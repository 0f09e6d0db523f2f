#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each (default 30s), in packages that match a pattern (default:
# all). It goes on after a failure, and says at the end which targets failed; Go has then written the input to testdata/fuzz
# of the package, where it is a test from now on.
#   scripts/fuzz.sh [time] [package pattern...]
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
shift || true
targets=0
failed=()
out=$(mktemp)
trap 'rm -f "$out"' EXIT
# Listing builds the tests, so only packages with a target in their sources are asked.
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	pkg=$(go list "$dir") || exit 1
	if [ $# -gt 0 ] && ! go list "$@" | grep -qxF "$pkg"; then continue; fi
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz'); do
		targets=$((targets + 1))
		if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel "${FUZZ_PARALLEL:-$(nproc)}" "$pkg" >"$out" 2>&1; then
			# "fuzz: elapsed: 30s, execs: 123456 (4115/sec), new interesting: 7 (total: 99)"
			echo "ok    $dir $target: $(sed -n 's/.*\(execs: [0-9]*\).*\(new interesting: [0-9]*\).*/\1, \2/p' "$out" | tail -1)"
		else
			failed+=("$dir $target")
			echo "FAIL  $dir $target"
			sed 's/^/      /' "$out" | tail -40
		fi
	done
done
echo "$targets fuzz targets, $time each, ${#failed[@]} failed"
[ $targets -gt 0 ] && [ ${#failed[@]} -eq 0 ]
