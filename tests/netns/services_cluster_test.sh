#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Services as pods and the nodes' own processes use them: every category of spec-kpr section 11 whose
# client is in the cluster. The number of the category is in the name of each case.

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
# shellcheck source=tests/netns/services_lib.sh
. "$PB_TOP_SRCDIR/tests/netns/services_lib.sh"
missing=$(services_missing)
[ -z "$missing" ] || skip_all "$missing"
no_tftp=$(tftp_missing)

vip=10.96.2.1
vip6=fd00:96:2::1
here=192.168.50.1
there=192.168.50.2

cluster_add web-a@node-a web-b@node-b client-a@node-a client-b@node-b
places="client-a node-a client-b node-b"
if [ -z "$no_tftp" ]; then
	tftp_serve web-a
	tftp_serve web-b
fi

# web: a backend on each node. one-*: a single backend, on node-a and on node-b.
both_families="ipFamilyPolicy: RequireDualStack"
service web NodePort "$vip $vip6" "$(both web 80 30080)" "$both_families"
slice web-v4 web IPv4 "$(target 8080)" "$(pod_ep web-a)" "$(pod_ep web-b)"
slice web-v6 web IPv6 "$(target 8080)" "$(pod_ep6 web-a)" "$(pod_ep6 web-b)"
service one-a NodePort "10.96.2.2 fd00:96:2::2" "$(both one 80 30081)" "$both_families"
slice one-a-v4 one-a IPv4 "$(target 8080)" "$(pod_ep web-a)"
slice one-a-v6 one-a IPv6 "$(target 8080)" "$(pod_ep6 web-a)"
service one-b NodePort 10.96.2.3 "$(both one 80 30082)"
slice one-b one-b IPv4 "$(target 8080)" "$(pod_ep web-b)"
tftp_port='[{name: tftp, protocol: UDP, port: 69, nodePort: 30069}]'
service tftp NodePort 10.96.2.69 "$tftp_port"
slice tftp tftp IPv4 '[{name: tftp, protocol: UDP, port: 69}]' "$(pod_ep web-a)"

begin start
then_ok "agents start" agents_start snat random
for name in web one-a one-b tftp; do
	then_ok "Service $name is programmed" everywhere "$name"
done

begin C1_cluster_ip_same_node_and_other_node
for place in $places; do
	for proto in tcp udp udpc; do
		then_is "$proto from $place reaches both backends" "$(who_of "$place" 40 $proto $vip 80)" "web-a web-b"
	done
	then_is "IPv6 from $place" "$(who_of "$place" 40 tcp $vip6 80)" "web-a web-b"
	then_is "the same node's backend from $place" "$(who_of "$place" 3 tcp 10.96.2.2 80)" web-a
	then_is "the other node's backend from $place" "$(who_of "$place" 3 tcp 10.96.2.3 80)" web-b
	then_is "HTTP from $place" "$(run_in "$place" curl -s -m 3 http://10.96.2.2/ | cut -d' ' -f1)" web-a
	if [ -n "$no_tftp" ]; then
		skip "TFTP from $place" "$no_tftp"
	else
		then_is "TFTP from $place" "$(tftp "$place" 10.96.2.69)" web-a
	fi
done
then_is "the backend sees the pod itself" \
	"$(ask client-a -v tcp 10.96.2.3 80 | cut -d' ' -f2)" "$(pod_ip4 client-a)"

begin C3_bind_is_rejected_on_a_node_K18
for proto in tcp udp; do
	for at in 127.0.0.1 0.0.0.0 ::ffff:127.0.0.1; do
		case $at in
		::*) to=::ffff:127.0.0.1 ;;
		*) to=127.0.0.1 ;;
		esac
		then_is "$proto $at" "$(ask node-a --from $at --source-port 30080 $proto $to 9)" errno-98
	done
done
then_is "K21_a port of the range that no Service has" \
	"$(ask node-a --from 127.0.0.1 --source-port 30999 tcp 127.0.0.1 9)" refused
then_is "K19_a pod may bind it" \
	"$(ask client-a --from 127.0.0.1 --source-port 30080 tcp 127.0.0.1 9)" refused

begin C5_hairpin
for proto in tcp udp; do
	then_is "$proto to its own ClusterIP, ten times" "$(who_of web-a 10 $proto 10.96.2.2 80)" web-a
	then_is "$proto to its own NodePort, ten times" "$(who_of web-a 10 $proto $here 30081)" web-a
	then_is "$proto to its own NodePort on the other node" "$(who_of web-a 10 $proto $there 30081)" web-a
done
then_is "IPv6" "$(who_of web-a 10 tcp fd00:96:2::2 80)" web-a
if [ -n "$no_tftp" ]; then
	skip "TFTP" "$no_tftp"
else
	for ((i = 0; i < 10; i++)); do tftp web-a 10.96.2.69; done >"$PB_TMP/tftps"
	then_is "TFTP, ten times" "$(sort "$PB_TMP/tftps" | uniq -c | tr -s ' ')" " 10 web-a"
fi

begin C6_node_port_in_the_cluster
for place in $places; do
	for at in $here $there ::ffff:$here ::ffff:$there 203.0.113.1 203.0.113.2; do
		for proto in tcp udp; do
			then_is "$proto from $place to $at" "$(who_of "$place" 40 $proto "$at" 30080)" "web-a web-b"
		done
	done
	for at in fd00:50::1 fd00:50::2; do
		then_is "IPv6 from $place to $at" "$(who_of "$place" 40 tcp $at 30080)" "web-a web-b"
	done
	then_is "K23_ClusterIP and nodePort from $place" "$(ask "$place" --timeout-ms 500 tcp $vip 30080)" timeout
done
for node in node-a node-b; do
	for at in 127.0.0.1 ::ffff:127.0.0.1; do
		for proto in tcp udp; do
			then_is "K14 K17_$proto from $node to $at" "$(who_of $node 40 $proto $at 30080)" "web-a web-b"
		done
	done
done
for at in 127.0.0.1 ::1 ::ffff:127.0.0.1; do
	then_is "K15_from a pod to $at" "$(ask client-a tcp $at 30080)" refused
done

begin C9_a_source_port_that_is_a_node_port_too
if [ -n "$no_tftp" ]; then
	skip "TFTP" "$no_tftp"
else
	then_is "TFTP from a pod to the ClusterIP" "$(tftp client-a 10.96.2.69 69 --local-port 30080)" web-a
	then_is "to the other node's NodePort" "$(tftp client-a $there 30069 --local-port 30080)" web-a
	then_is "from the other node's pod" "$(tftp client-b $here 30069 --local-port 30080)" web-a
	then_is "straight to the pod" "$(tftp client-b "$(pod_ip4 web-a)" 69 --local-port 30080)" web-a
fi
ip -n outside route add 10.244.1.0/24 via $here
then_is "UDP from outside, straight to a pod" \
	"$(ask outside --source-port 30080 udp "$(pod_ip4 web-a)" 8080)" web-a

begin C12_two_node_ports_one_backend_one_source_port
service twin NodePort 10.96.2.4 "$(both twin 80 30083)"
slice twin twin IPv4 "$(target 8080)" "$(pod_ep web-b)"
then_ok "the second Service is programmed" everywhere twin
for proto in tcp udp; do
	for place in client-a outside; do
		then_is "$proto from $place, first" "$(ask $place --source-port 40123 $proto $here 30082)" web-b
		then_is "second, with the same source port" "$(ask $place --source-port 40123 $proto $here 30083)" web-b
		then_is "and the first again" "$(ask $place --source-port 40123 $proto $here 30082)" web-b
	done
done

begin C17_fragments
for place in client-a node-a client-b; do
	for at in "$vip 80" "$here 30080" "$there 30080" "::ffff:$here 30080" "$vip6 80"; do
		# shellcheck disable=SC2086 # address and port
		then_is "5120 bytes there and back, from $place to $at" "$(who_of "$place" 20 --size 5120 udp $at)" "web-a web-b"
	done
done

begin K22_node_address_and_service_port
then_is "is refused" "$(ask client-b tcp $here 80)" refused

begin K8_type_changes_to_cluster_ip
spawn_in web-a "$PB_TOOLS/echo" 7007
service kept NodePort 10.96.2.7 '[{name: echo, protocol: TCP, port: 7, nodePort: 30087}]'
slice kept kept IPv4 '[{name: echo, protocol: TCP, port: 7007}]' "$(pod_ep web-a)"
then_ok "it is programmed" everywhere kept
given "a connection through the ClusterIP"
spawn_in client-b "$PB_TOOLS/load" --seconds 60 --rate 500 rr 10.96.2.7 7 >"$PB_TMP/kept"
kept=$spawned
then_is "and one to the node's port" \
	"$(run_in client-b "$PB_TOOLS/load" --count 5 --seconds 5 rr $there 30087 | jq .answered)" 5
service kept ClusterIP 10.96.2.7 '[{name: echo, protocol: TCP, port: 7}]'
then_within "the node's port is refused" 10 "[ \"\$(ask client-b tcp $here 30087)\" = refused ]"
then_is "it can be bound at once" "$(ask node-a --from 127.0.0.1 --source-port 30087 tcp 127.0.0.1 9)" refused
end_pid $kept
then_is "the connection has lost nothing" \
	"$(jq 'if .answered > 5 then .failed + .lost + .wrong else "too little traffic" end' "$PB_TMP/kept")" 0
services_debug
services_end
done_testing
