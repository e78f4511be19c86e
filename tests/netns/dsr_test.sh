#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Direct server return over two agents: real connections from outside to addresses that node-a has,
# backends on node-b, with each dispatch; and dsr unloaded and loaded again under load.

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
# shellcheck source=tests/netns/services_lib.sh
. "$PB_TOP_SRCDIR/tests/netns/services_lib.sh"
missing=$(services_missing)
[ -z "$missing" ] || skip_all "$missing"
[ -x "$PB_TOOLS/echo" ] || skip_all "tests/tools/echo is not built"

here=192.168.50.1
lb=192.0.2.10

cluster_add web-b@node-b
route_outside $lb node-a
spawn_in web-b "$PB_TOOLS/echo" 7007

service far LoadBalancer "10.96.3.2 fd00:96:3::2" "$(both far 80 30181)" \
	"ipFamilyPolicy: RequireDualStack" "[{ip: $lb}]"
slice far-v4 far IPv4 "$(target 8080)" "$(pod_ep web-b)"
slice far-v6 far IPv6 "$(target 8080)" "$(pod_ep6 web-b)"
service echo NodePort 10.96.3.3 "$(both echo 7 30107)"
slice echo echo IPv4 "$(target 7007)" "$(pod_ep web-b)"

counter() { patchbay_on "$1" -o json dsr status | jq ".$2"; }
# Who answered, and whom he saw.
seen() { ask outside -v "$@" | cut -d' ' -f1,2; }
# load_of JQ LOAD_ARGS...
load_of() {
	local field=$1

	shift
	run_in outside "$PB_TOOLS/load" "$@" | jq -c "$field"
}

# in_force NODE: how many configurations were, up to now.
in_force() { grep -c 'SIGHUP: .* is in force' "$(agent_log "$1")"; }

configure() {
	local node
	local -A before

	for node in "${nodes[@]}"; do
		agent_config "$node" "{endpointslice: {}, kpr: {algorithm: random}, dsr: {dispatch: $1}}"
		before[$node]=$(in_force "$node")
		kill -HUP "${agent_pid[$node]}"
	done
	for node in "${nodes[@]}"; do
		wait_until "[ \$(in_force $node) -gt ${before[$node]} ]" 10 || return
		[ "$(counter "$node" dispatch)" = "\"$1\"" ] || return
	done
}

begin start
then_ok "the agents start" agents_start dsr random
then_ok "Service far" everywhere far
then_ok "Service echo" everywhere echo

for dispatch in opt ipip geneve; do
	begin "D4_D8_D39_$dispatch"
	then_ok "dispatch $dispatch" configure $dispatch
	sent=$(counter node-a sent)
	for proto in tcp udp udpc; do
		then_is "$proto to the load balancer's address: the client is seen" "$(seen $proto $lb 80)" "web-b $outside4"
		then_is "$proto to the nodePort" "$(seen $proto $here 30181)" "web-b $outside4"
		then_is "$proto to the nodePort, IPv6" "$(seen $proto fd00:50::1 30181)" "web-b $outside6"
		then_is "D40_$proto to the nodePort at the node's second address" \
			"$(seen $proto 203.0.113.1 30181)" "web-b 203.0.113.100"
	done
	then_ok "the first node has sent the frontend along" test "$(counter node-a sent)" -ge $((sent + 12))
	then_is "the second has believed it" "$(counter node-b untrusted)" 0
	then_is "and taken it out" "$(counter node-b kept)" 0
	then_ok "D6_a stream of large segments" test \
		"$(load_of '.bytes_per_second | floor' --seconds 2 stream $here 30107)" -gt 1000000
	then_is "D6_a thousand requests on one connection" \
		"$(load_of '.answered - .failed - .lost - .wrong' --count 1000 rr $here 30107)" 1000
	then_is "five hundred connections" \
		"$(load_of '.answered - .failed - .lost - .wrong' --count 500 crr $here 30107)" 500
	then_is "a thousand datagrams" \
		"$(load_of '.answered - .failed - .lost - .wrong' --count 1000 udp $here 30107)" 1000
done

begin D15_D16_sizes
then_ok "dispatch opt" configure opt
then_is "1492 bytes pass" "$(ask outside --size 1464 udp $here 30181)" web-b
mtu=$(counter node-a mtu)
ask outside --size 1470 --timeout-ms 300 udp $here 30181 >/dev/null
then_is "1498 bytes are answered" "$(counter node-a mtu)" $((mtu + 1))
then_is "and then cut to size by the client" "$(ask outside --size 1470 udp $here 30181)" web-b

begin D17_fragments
then_is "5000 bytes" "$(ask outside --size 5000 udp $here 30181)" web-b

begin D34_strict_rp_filter
sysctl_in node-b net.ipv4.conf.eth0.rp_filter=1
for proto in tcp udp; do
	then_is "$proto where the client's route leads through the same device" \
		"$(seen --from "$outside_far" $proto $here 30181)" "web-b $outside_far"
done
# As if the way to that client led elsewhere.
ip -n node-b route add "$outside_far/32" dev "$(pod_link web-b)"
then_is "where it doesn't, the kernel drops what comes" \
	"$(ask outside --timeout-ms 300 --from "$outside_far" udp $here 30181)" timeout
then_is "other clients aren't concerned" "$(seen udp $here 30181)" "web-b $outside4"
ip -n node-b route del "$outside_far/32" dev "$(pod_link web-b)"
sysctl_in node-b net.ipv4.conf.eth0.rp_filter=0

begin D32_port_unreachable
service closed NodePort 10.96.3.4 '[{name: udp, protocol: UDP, port: 9, nodePort: 30109}]'
slice closed closed IPv4 '[{name: udp, protocol: UDP, port: 9}]' "$(pod_ep web-b)"
then_ok "Service closed" everywhere closed
then_is "the client hears of it" "$(ask outside udpc $here 30109)" refused

begin D20_the_second_node_forgets
run_in outside "$PB_TOOLS/load" --seconds 3 --rate 50 --timeout-ms 200 rr $here 30107 >"$PB_TMP/forgotten" &
asking=$!
established() { patchbay_on node-b -o json ct list | jq -e '[(.items? // .)[] | select(.state == "established")] | length > 0'; }
then_within "a connection" 5 established
then_ok "flush" patchbay_on node-b ct flush
wait $asking
then_ok "what comes later is dropped" test "$(counter node-b nat_missing)" -gt 0

begin unloading_and_loading_under_load
run_in outside "$PB_TOOLS/load" --seconds 8 --workers 2 rr $here 30107 >"$PB_TMP/rr" &
pids=$!
run_in outside "$PB_TOOLS/load" --seconds 8 --workers 2 crr $here 30107 >"$PB_TMP/crr" &
pids="$pids $!"
run_in outside "$PB_TOOLS/load" --seconds 8 --workers 2 udp $here 30107 >"$PB_TMP/udp" &
pids="$pids $!"
swaps=0
while kill -0 "${pids##* }" 2>/dev/null; do
	patchbay_on node-a plugin unload dsr >/dev/null && patchbay_on node-b plugin reload dsr >/dev/null &&
		patchbay_on node-a plugin load dsr >/dev/null && swaps=$((swaps + 1))
done
# shellcheck disable=SC2086 # a list
wait $pids
note "$swaps times"
then_ok "it was swapped" test $swaps -ge 2
for what in rr crr udp; do
	note "$what: $(jq -c . "$PB_TMP/$what")"
	then_is "$what: nothing lost, nothing wrong" "$(jq '.failed + .lost + .wrong' "$PB_TMP/$what")" 0
done

services_debug
services_end
done_testing
