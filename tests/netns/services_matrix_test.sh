#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The matrix: who may reach what of five Services, from four places in the cluster and from outside,
# at twelve addresses and eight ports, over TCP and UDP. Expected is what kube-proxy does, but for
# the deviations that docs/compatibility.md names. Each row of a place is one test; the tables are
# printed at the end of each run.
#
#   PB_MATRIX_MODE       "snat dsr"        which modes to run
#   PB_MATRIX_ALGORITHM  "random maglev"   with which choice of backends

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
# shellcheck source=tests/netns/services_lib.sh
. "$PB_TOP_SRCDIR/tests/netns/services_lib.sh"
missing=$(services_missing)
[ -z "$missing" ] || skip_all "$missing"

modes=${PB_MATRIX_MODE:-snat dsr}
algorithms=${PB_MATRIX_ALGORITHM:-random maglev}

# ---- five Services --------------------------------------------------------------------------
#
# A and B have external addresses: two that nobody owns, and those of node-a. B's port lies in the
# NodePort range but is none. C, D and E are NodePorts; D's and E's backends use the host's network.

nobody_public=192.0.2.233
nobody_private=10.99.0.233

cluster_add app1@node-a app2@node-b client-a@node-a client-b@node-b
serve node-a app4 8084
serve node-b app6 8086
for address in $nobody_public $nobody_private; do
	route_outside "$address" node-a
done
ip -n outside route add 10.96.0.0/16 via "$(node_ip4 node-a)"

external="externalIPs: [$nobody_public, $nobody_private, $(node_public4 node-a), $(node_ip4 node-a)]"
service a ClusterIP 10.96.1.1 "$(both a 82)" "$external"
service b ClusterIP 10.96.1.2 "$(both b 30002)" "$external"
service c NodePort 10.96.1.3 "$(both c 83 30003)"
service d NodePort 10.96.1.4 "$(both d 84 30004)"
service e NodePort 10.96.1.5 "$(both e 85 30005)"
slice a a IPv4 "$(target 8080)" "$(pod_ep app1)"
slice b b IPv4 "$(target 8080)" "$(pod_ep app1)"
slice c c IPv4 "$(target 8080)" "$(pod_ep app2)"
slice d d IPv4 "$(target 8084)" "$(host_ep node-a)"
slice e e IPv4 "$(target 8086)" "$(host_ep node-b)"

ports="82 30002 83 84 85 30003 30004 30005"
places="client-a node-a client-b node-b outside"
declare -A address_of=(
	[nobody-public]=$nobody_public [nobody-private]=$nobody_private
	[node-a-public]=$(node_public4 node-a) [node-a-private]=$(node_ip4 node-a)
	[node-b-public]=$(node_public4 node-b) [node-b-private]=$(node_ip4 node-b)
	[localhost]=127.0.0.1
	[cluster-ip-a]=10.96.1.1 [cluster-ip-b]=10.96.1.2 [cluster-ip-c]=10.96.1.3
	[cluster-ip-d]=10.96.1.4 [cluster-ip-e]=10.96.1.5
)
targets="nobody-public nobody-private node-a-public node-a-private node-b-public node-b-private
	localhost cluster-ip-a cluster-ip-b cluster-ip-c cluster-ip-d cluster-ip-e"

# One row for each kind of place and target: what is expected at the eight ports. A pattern of
# places, then of targets; the first that matches counts.
#
# Deviation: kube-proxy hands what a node's own pods send to an external address that nobody owns to
# the Service; here a foreign address is never taken over (CVE-2020-8554).
expected_rows='
outside        nobody-*        app1    app1    timeout timeout timeout timeout timeout timeout
*              nobody-*        timeout timeout timeout timeout timeout timeout timeout timeout
*              node-a-*        app1    app1    refused refused refused app2    app4    app6
*              node-b-*        refused refused refused refused refused app2    app4    app6
node-*         localhost       refused refused refused refused refused app2    app4    app6
*              localhost       refused refused refused refused refused refused refused refused
outside        cluster-ip-*    timeout timeout timeout timeout timeout timeout timeout timeout
*              cluster-ip-a    app1    timeout timeout timeout timeout timeout timeout timeout
*              cluster-ip-b    timeout app1    timeout timeout timeout timeout timeout timeout
*              cluster-ip-c    timeout timeout app2    timeout timeout timeout timeout timeout
*              cluster-ip-d    timeout timeout timeout app4    timeout timeout timeout timeout
*              cluster-ip-e    timeout timeout timeout timeout app6    timeout timeout timeout
'

# expected PLACE TARGET: eight words.
expected() {
	local place target rest

	while read -r place target rest; do
		# shellcheck disable=SC2053 # patterns
		if [ -n "$place" ] && [[ $1 == $place && $2 == $target ]]; then
			tr -s ' ' <<<"$rest"
			return
		fi
	done <<<"$expected_rows"
}

# ---- asking ---------------------------------------------------------------------------------

# questions PROTO: one line each for ask.
questions() {
	local target port

	for target in $targets; do
		for port in $ports; do
			echo "$target:$port $1 ${address_of[$target]} $port"
		done
	done
}

# ask_all PROTO: all places at once; answers in $PB_TMP/answers.PLACE.
ask_all() {
	local place pids=()

	questions "$1" >"$PB_TMP/questions"
	for place in $places; do
		run_in "$place" "$PB_TOOLS/ask" --timeout-ms 1500 - <"$PB_TMP/questions" >"$PB_TMP/answers.$place" &
		pids+=($!)
	done
	wait "${pids[@]}"
}

# row_of PLACE TARGET: eight words, as answered.
row_of() {
	awk -v target="$2" '{ split($1, id, ":") } id[1] == target { printf "%s%s", sep, $3 == "" ? $2 : $2 "=" $3; sep = " " }' \
		"$PB_TMP/answers.$1"
}

# Words that aren't as expected are shown as IS!EXPECTED.
marked() {
	paste -d' ' <(tr ' ' '\n' <<<"$1") <(tr ' ' '\n' <<<"$2") |
		awk '{ printf " %-9s", $1 == $2 ? $1 : $1 "!" $2 }'
}

# judge TITLE: one test for each row, and a table of the place.
judge() {
	local place target is wanted

	for place in $places; do
		{
			printf '# %s, from %s\n# %-16s' "$1" "$place" ""
			# shellcheck disable=SC2086 # words
			printf ' %-9s' $ports
			echo
		} >>"$PB_TMP/table"
		for target in $targets; do
			is=$(row_of "$place" "$target")
			wanted=$(expected "$place" "$target")
			then_is "from $place to $target" "$is" "$wanted"
			printf '# %-16s%s\n' "$target" "$(marked "$is" "$wanted")" >>"$PB_TMP/table"
		done
	done
}

# ---- runs -----------------------------------------------------------------------------------

for mode in $modes; do
	for algorithm in $algorithms; do
		begin "matrix_${mode}_$algorithm"
		agents_stop
		then_ok "agents start" agents_start "$mode" "$algorithm"
		for name in a b c d e; do
			then_ok "Service $name is programmed" everywhere "$name"
		done
		: >"$PB_TMP/table"
		for proto in tcp udp; do
			begin "matrix_${mode}_${algorithm}_$proto"
			ask_all "$proto"
			judge "$mode, $algorithm, $proto"
		done
		sed 's/ *$//' "$PB_TMP/table"
	done
done
services_debug
services_end
done_testing
