#!/usr/bin/env bash
# The long forms of the tests that choose at random: each part gets its share of SOAKTIME (default 60m), begins its rounds
# with fresh seeds, and prints what it has done. Round by round the output is in bin/soak. A failure does not stop the rest;
# it is shown with the command that repeats it. Needs root, as the tests do.
#   SOAKTIME=20m scripts/soak.sh [pairs|churn|faults|graph|ipam|fuzz ...]
set -uo pipefail
cd "$(dirname "$0")/.."

seconds() { # seconds 90s|20m|2h
	local n=${1%[smh]}
	case $1 in *h) n=$((n * 3600)) ;; *m) n=$((n * 60)) ;; esac
	echo "$n"
}
total=$(seconds "${SOAKTIME:-60m}") || exit 2
parts=("$@")
[ $# -gt 0 ] || parts=(pairs churn faults graph ipam fuzz)
declare -A share=([pairs]=25 [churn]=20 [faults]=10 [graph]=10 [ipam]=10 [fuzz]=25)
sum=0
for part in "${parts[@]}"; do
	[ -n "${share[$part]:-}" ] || { echo "there is no part $part: ${!share[*]}" >&2; exit 2; }
	sum=$((sum + share[$part]))
done
out=bin/soak
mkdir -p "$out"
failed=()

fresh() { od -An -N6 -tu8 /dev/urandom | tr -d ' '; }

# round PART LOG COMMAND... runs a round; its line of counts is made of what the tests log.
round() {
	local part=$1 log=$2 began=$SECONDS
	shift 2
	if "$@" >"$log" 2>&1; then
		echo "ok    $part, $((SECONDS - began)) s: $*"
		grep -E "$counts" "$log" | sed 's/^ *[a-z_]*\.go:[0-9]*: /        /'
		return 0
	fi
	failed+=("$part: $*")
	echo "FAIL  $part, $((SECONDS - began)) s: $*   (whole output: $log)"
	grep -vE '^=== ' "$log" | tail -40 | sed 's/^/        /'
}

# rounds PART SECONDS FUNCTION calls FUNCTION, which is one round, until the time is over; once at least.
rounds() {
	local end=$((SECONDS + $2)) n=0
	while [ $n -eq 0 ] || [ $SECONDS -lt $end ]; do
		n=$((n + 1))
		"$3" "$out/$1.$n.log"
	done
	echo "== $1: $n rounds"
}

pairs() {
	counts='random pairs'
	round pairs "$1" env TORTIE_SEED="$(fresh)" TORTIE_RANDOM="${PAIRS:-20000}" TORTIE_WALKS=5 \
		go test -count=1 -timeout 60m -v -run '^TestConformance$' ./drivers/linux
}
churn() {
	counts='killed$|none lost'
	round churn "$1" env TORTIE_CHURN_SEED="$(fresh)" TORTIE_CHURN_TIME="${CHURN}s" \
		go test -count=1 -timeout $((CHURN + 600))s -v -run '^TestKillChurn$' ./test/faults
}
faults() {
	counts='none lost'
	round faults "$1" go test -race -count=1 -timeout 20m -v -skip '^TestKillChurn$' ./test/faults
}
graph() {
	counts='^ok '
	round graph "$1" go test -count=1 -timeout 60m -run '^TestRandomWalks$' ./calcgraph -args -seeds "${WALKS:-3000}" -first "$(fresh)"
	round graph "$1.kubernetes" go test -count=1 -timeout 60m -run '^TestAgreesWithKubernetes$' ./datastore/kube/convert -args -seeds "${CLUSTERS:-5000}" -first "$(fresh)"
}
ipam() {
	counts='steps|nodes|^ok '
	round ipam "$1" go test -count=1 -timeout 60m -v -run '^(TestFuzz|TestThousandNodes)$' ./ipam -args -ipam.steps "${STEPS:-3000000}"
}

began=$SECONDS
for part in "${parts[@]}"; do
	time=$((total * share[$part] / sum))
	echo "== $part: $time s"
	case $part in
	churn) # one long round
		CHURN=$((time > 15 ? time : 15))
		rounds churn 0 churn ;;
	fuzz)
		targets=$(grep -rh --include='*_test.go' '^func Fuzz' . | wc -l)
		scripts/fuzz.sh $((time / targets + 1))s || failed+=("fuzz: what it found is in testdata/fuzz of the package, and fails its tests") ;;
	*) rounds "$part" "$time" "$part" ;;
	esac
done
echo "soak: ${parts[*]}; $((SECONDS - began)) s; ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ] || { printf '  %s\n' "${failed[@]}"; exit 1; }
