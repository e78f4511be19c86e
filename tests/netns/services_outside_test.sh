#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Services as clients outside of the cluster use them: the other categories of spec-kpr section 11.
# Those that concern the packet path run with SNAT and with DSR. The number of the category is in the
# name of each case.
#
#   PB_MATRIX_MODE   "snat dsr"   which modes to run

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
# shellcheck source=tests/netns/services_lib.sh
. "$PB_TOP_SRCDIR/tests/netns/services_lib.sh"
missing=$(services_missing)
[ -z "$missing" ] || skip_all "$missing"
modes=${PB_MATRIX_MODE:-snat dsr}
no_tftp=$(tftp_missing)

here=192.168.50.1
there=192.168.50.2
lb=192.0.2.10
lb_local=192.0.2.11
lb_ranges=192.0.2.12
external=192.0.2.13

cluster_add web-a@node-a web-b@node-b client-a@node-a client-b@node-b
for address in $lb $lb_local $lb_ranges $external; do
	route_outside "$address" node-a
done
ip -n outside route add 10.96.0.0/16 via $here
[ -n "$no_tftp" ] || tftp_serve web-b

service web NodePort "10.96.3.1 fd00:96:3::1" "$(both web 80 30180)" "ipFamilyPolicy: RequireDualStack"
slice web-v4 web IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
slice web-v6 web IPv6 "$(target 8080)" "$(pod_ep6 web-a)" "$(pod_ep6 web-b)"
# A single backend, on the other node than the one that is asked.
service far NodePort "10.96.3.2 fd00:96:3::2" "$(both far 80 30181)" "ipFamilyPolicy: RequireDualStack"
slice far-v4 far IPv4 "$(target 8080)" "$(pod_ep web-b)"
slice far-v6 far IPv6 "$(target 8080)" "$(pod_ep6 web-b)"
service near NodePort 10.96.3.3 "$(both near 80 30182)"
slice near near IPv4 "$(target 8080)" "$(pod_ep web-a)"
service lb LoadBalancer 10.96.3.4 "$(both lb 80 30183)" "" "[{ip: $lb}]"
slice lb lb IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
service local LoadBalancer 10.96.3.5 "$(both local 80 30184)" \
	"externalTrafficPolicy: Local, healthCheckNodePort: 30190" "[{ip: $lb_local}]"
slice local local IPv4 "$(target 8080)" "$(pod_ep web-b)"
service ranges LoadBalancer 10.96.3.6 "$(both ranges 80 30185)" \
	"loadBalancerSourceRanges: [198.51.100.0/24]" "[{ip: $lb_ranges}]"
slice ranges ranges IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
service ext ClusterIP 10.96.3.7 "$(both ext 8000)" "externalIPs: [$external]"
slice ext ext IPv4 "$(target 8080)" "$(pod_ep web-b)"
service sticky NodePort 10.96.3.8 "$(both sticky 80 30186)" \
	"sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}"
slice sticky sticky IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
service tftp NodePort 10.96.3.69 '[{name: tftp, protocol: UDP, port: 69, nodePort: 30169}]'
slice tftp tftp IPv4 '[{name: tftp, protocol: UDP, port: 69}]' "$(pod_ep web-b)"
names="web far near lb local ranges ext sticky tftp"

# restart MODE ALGORITHM [KPR_YAML [EXTRA_YAML]]
restart() {
	agents_stop
	then_ok "agents start" agents_start "$@"
	for name in $names; do
		then_ok "Service $name is programmed" everywhere "$name"
	done
}

# The client that the backend saw.
seen_by() { local place=$1; shift; ask "$place" -v "$@" | cut -d' ' -f2; }

# ---- what depends on the mode ---------------------------------------------------------------

# preserved MODE PROTO: whether a remote backend sees the client.
preserved() {
	case $1-$2 in
	dsr-* | hybrid-tcp) echo yes ;;
	*) echo no ;;
	esac
}

node_ports() {
	local proto at

	begin "C6_node_port_from_outside_$1"
	for proto in tcp udp udpc; do
		for at in $here $there 203.0.113.1 203.0.113.2 fd00:50::1 fd00:50::2; do
			then_is "$proto to $at" "$(who_of outside 40 $proto "$at" 30180)" "web-a web-b"
		done
	done
	if [ -n "$no_tftp" ]; then
		skip "TFTP" "$no_tftp"
	else
		then_is "TFTP" "$(tftp outside $here 30169)" web-b
		then_is "C9_TFTP from a source port that is a nodePort" "$(tftp outside $here 30169 --local-port 30180)" web-b
	fi
	then_is "K22_the Service's port is refused" "$(ask outside tcp $here 80)" refused
}

# A first fragment without room for the frontend begins a flow with SNAT. A flow of before that had room, found again
# by a source port that is used again, would be told what fits instead (errno 90).
fragments() {
	begin "C17_fragments_$1"
	for node in node-a node-b; do
		then_ok "no flow is known on $node" patchbay_on $node ct flush
	done
	for at in $here $there; do
		then_is "5120 bytes to a remote and a local backend, $at" \
			"$(who_of outside 20 --size 5120 udp "$at" 30180)" "web-a web-b"
	done
}

source_table() {
	local proto wanted

	begin "C15_source_address_$1_$2"
	for proto in tcp udp; do
		wanted=$outside4
		[ "$(preserved "$1" $proto)" = yes ] || wanted=$here
		then_is "$proto to a remote backend" "$(seen_by outside $proto $here 30181)" "$wanted"
		then_is "$proto to a local backend: always kept" "$(seen_by outside $proto $here 30182)" "$outside4"
		wanted=$outside6
		[ "$(preserved "$1" $proto)" = yes ] || wanted=fd00:50::1
		then_is "$proto, IPv6, to a remote backend" "$(seen_by outside $proto fd00:50::1 30181)" "$wanted"
	done
}

local_policy() {
	begin "C7_external_traffic_policy_local_$1"
	for proto in tcp udp; do
		# K27: with DSR, too, the local backend is asked without a detour.
		then_is "K27_$proto to the node with a backend: answered, source kept" \
			"$(ask outside -v $proto $there 30184 | cut -d' ' -f1,2)" "web-b $outside4"
		then_is "K26_$proto to the node without: silence" "$(ask outside --timeout-ms 700 $proto $here 30184)" timeout
		then_is "$proto to the LB address through the node without: silence" \
			"$(ask outside --timeout-ms 700 $proto $lb_local 80)" timeout
		for place in node-a client-a node-b client-b; do
			then_is "K25_$proto from $place to either node" \
				"$(who_of "$place" 3 $proto $here 30184) $(who_of "$place" 3 $proto $there 30184)" "web-b web-b"
		done
	done
}

flush() {
	begin "C14_conntrack_flush_$1"
	then_is "a flow" "$(ask outside udp $here 30181)" web-b
	then_ok "is listed" test "$(patchbay_on node-a -o json ct list | jq '(.items? // .) | length')" -gt 0
	for node in node-a node-b; do
		then_ok "flush on $node" patchbay_on $node ct flush
		then_is "leaves no entry" "$(patchbay_on $node -o json map dump core/pb_ct | jq '(.items? // .) | length')" 0
	done
	then_is "the next flow works" "$(ask outside udp $here 30181)" web-b
	then_is "TCP too" "$(ask outside tcp $here 30181)" web-b
}

load_balancers() {
	begin "C22_load_balancer_address_$1"
	for proto in tcp udp; do
		then_is "$proto from outside" "$(who_of outside 40 $proto $lb 80)" "web-a web-b"
	done
	begin "C21_source_ranges_$1"
	for proto in tcp udp; do
		then_is "$proto from inside of the range" "$(who_of outside 20 --from "$outside_far" $proto $lb_ranges 80)" "web-a web-b"
		then_is "K28_$proto from another address: silence" "$(ask outside --timeout-ms 700 $proto $lb_ranges 80)" timeout
		then_is "the nodePort isn't concerned" "$(who_of outside 20 $proto $here 30185)" "web-a web-b"
	done
	begin "C11_external_ip_$1"
	for proto in tcp udp; do
		then_is "$proto from outside" "$(ask outside $proto $external 8000)" web-b
	done
}

for mode in $modes; do
	begin "start_$mode"
	restart "$mode" random
	node_ports "$mode"
	fragments "$mode"
	source_table "$mode" random
	local_policy "$mode"
	load_balancers "$mode"
	flush "$mode"
done

# ---- Maglev ---------------------------------------------------------------------------------

same_backend() {
	local port out

	for port in {41001..41020}; do
		echo "$(ask outside --source-port "$port" "$1" "$here" 30180) $(ask outside --source-port "$port" "$1" "$there" 30180)"
	done >"$PB_TMP/pairs"
	out=$(awk '$1 != $2 || NF != 2' "$PB_TMP/pairs")
	[ -z "$out" ] || { echo "$out"; return 1; }
	[ "$(cut -d' ' -f1 "$PB_TMP/pairs" | sort -u | wc -l)" = 2 ]
}

for mode in $modes; do
	begin "start_${mode}_maglev"
	restart "$mode" maglev
	source_table "$mode" maglev
	begin "C16_maglev_${mode}_one_source_port_either_node"
	for proto in tcp udp; do
		then_ok "$proto: the same backend" same_backend $proto
	done
done
case " $modes " in
*" dsr "*)
	begin start_hybrid
	restart hybrid random
	source_table hybrid random
	;;
esac

# ---- what doesn't ---------------------------------------------------------------------------

begin start
restart snat random

# health PLACE NODE_ADDRESS: status and body.
health() { run_in "$1" curl -s -m 3 -w ' %{http_code}' "http://$2:30190/healthz"; }

begin C2_health_check_node_port
for place in outside node-a node-b; do
	then_like "$place asks the node with a backend" "$(health $place $there)" '"localEndpoints":1,.* 200$'
	then_like "$place asks the other" "$(health $place $here)" '"localEndpoints":0,.* 503$'
done
when "the backend terminates"
slice local local IPv4 "$(target 8080)" "$(pod_ep web-b) ready: false, serving: true, terminating: true"
then_within "K32_the health check fails" 10 "health outside $there | grep -q ' 503$'"
then_is "and it is still used" "$(ask outside tcp $there 30184)" web-b
slice local local IPv4 "$(target 8080)" "$(pod_ep web-b)"
then_within "until it is ready again" 10 "health outside $there | grep -q ' 200$'"
when "kpr is reloaded while load balancers check"
for ((i = 0; i < 100; i++)); do
	health outside $there | tail -c 3
	echo
done >"$PB_TMP/checks" &
checks=$!
for _ in 1 2 3; do
	patchbay_on node-b plugin reload kpr >"$PB_TMP/out" 2>&1 || not_ok "reload: $(cat "$PB_TMP/out")"
done
wait $checks
then_is "every check is answered" "$(sort "$PB_TMP/checks" | uniq -c | tr -s ' ')" " 100 200"
when "the Service goes"
unwrite svc-local
names=${names/ local/}
then_within "its port is closed at once" 10 "! health outside $there"

begin K2_one_node_port_for_tcp_and_another_service_for_udp
service udp-twin NodePort 10.96.3.9 '[{name: udp, protocol: UDP, port: 80, nodePort: 30187}]'
service tcp-twin NodePort 10.96.3.10 '[{name: tcp, protocol: TCP, port: 80, nodePort: 30187}]'
slice udp-twin udp-twin IPv4 "$(target 8080)" "$(pod_ep web-a)"
slice tcp-twin tcp-twin IPv4 "$(target 8080)" "$(pod_ep web-b)"
then_ok "both are programmed" eval "everywhere udp-twin && everywhere tcp-twin"
for at in $here $there; do
	then_is "UDP at $at" "$(ask outside udp "$at" 30187)" web-a
	then_is "TCP at $at" "$(ask outside tcp "$at" 30187)" web-b
done

begin K51_a_node_port_changes
given "a Service with a nodePort and a ClusterIP"
service tcp-twin NodePort 10.96.3.10 '[{name: tcp, protocol: TCP, port: 80, nodePort: 30188}]'
then_within "the new one is served" 10 "[ \"\$(ask outside tcp $here 30188)\" = web-b ]"
then_is "the old one is refused" "$(ask outside tcp $here 30187)" refused
then_is "the UDP Service keeps it" "$(ask outside udp $here 30187)" web-a
then_is "the ClusterIP works" "$(ask client-a tcp 10.96.3.10 80)" web-b

begin K30_an_ingress_address_leaves_the_status
service lb LoadBalancer 10.96.3.4 "$(both lb 80 30183)"
then_within "it isn't served any more" 10 "[ \"\$(ask outside --timeout-ms 300 tcp $lb 80)\" = timeout ]"
then_is "the nodePort is" "$(who_of outside 40 tcp $here 30183)" "web-a web-b"

begin C10_session_affinity_from_outside
first=$(who_of outside 10 tcp $here 30186)
then_like "ten connections, one backend" "$first" '^web-[ab]$'
case $first in
web-a) other=web-b ;;
*) other=web-a ;;
esac
when "that pod goes"
slice sticky sticky IPv4 "$(target 8080)" "$(pod_ep $other)"
then_within "K36_the other one is used" 10 "[ \"\$(ask outside tcp $here 30186)\" = $other ]"
slice sticky sticky IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
then_ok "both are known again" everywhere sticky
then_is "and it stays" "$(who_of outside 10 tcp $here 30186)" "$other"

begin C11_external_ip_of_nobody_from_inside
for place in client-a node-a client-b node-b; do
	then_is "from $place: not taken over" "$(ask "$place" --timeout-ms 700 tcp $external 8000)" timeout
done

begin C19_cluster_ip_from_outside
then_is "is dropped" "$(ask outside --timeout-ms 700 tcp 10.96.3.2 80)" timeout
restart snat random "cluster_ip_external: true"
then_is "unless it is allowed" "$(ask outside tcp 10.96.3.2 80)" web-b

begin C20_a_device_that_comes_later
restart snat random "" ""
sed -i 's/devices: \[eth0\]/devices: [eth0, "eth+"]/' "$(agent_dir node-a)/patchbay.yaml"
agent_stop node-a
then_ok "the agent starts" agent_start node-a
ip link add eth1 netns node-a type veth peer name eth1 netns outside
ip -n node-a addr add 192.168.60.1/24 dev eth1
ip -n outside addr add 192.168.60.100/24 dev eth1
ip -n outside link set eth1 up
ip -n node-a link set eth1 up
then_within "its address serves NodePorts" 15 "[ \"\$(ask outside tcp 192.168.60.1 30181)\" = web-b ]"
services_debug
services_end
done_testing
