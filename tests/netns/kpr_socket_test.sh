#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What plugin kpr does to sockets beyond ClusterIPs, with a real agent on node-a: NodePorts from
# the host and from a pod, ports that bind() is refused, connected UDP sockets whose backend goes.

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
for tool in echo httpd; do
	[ -x "$PB_TOOLS/$tool" ] || skip_all "tests/tools/$tool is not built"
done
command -v jq >/dev/null || skip_all "needs jq: apt install jq"
command -v curl >/dev/null || skip_all "needs curl: apt install curl"

manifests=$(agent_dir node-a)/manifests

# write NAME: a manifest from standard input, complete at once.
write() {
	cat >"$manifests/.$1.new"
	mv "$manifests/.$1.new" "$manifests/$1.yaml"
}

node() {
	write "node-$1" <<-END
		apiVersion: v1
		kind: Node
		metadata: {name: $1}
		status: {addresses: [{type: InternalIP, address: $(node_ip4 "$1")}, {type: InternalIP, address: "$(node_ip6 "$1")"}]}
	END
}

# slice CONDITIONS ADDRESS...: the endpoints of Service web, first all with the conditions.
slice() {
	local conditions=$1 address

	shift
	{
		cat <<-END
			apiVersion: discovery.k8s.io/v1
			kind: EndpointSlice
			metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
			addressType: IPv4
			ports: [{name: http, protocol: TCP, port: 8080}, {name: udp, protocol: UDP, port: 7007}]
			endpoints:
		END
		[ $# -gt 0 ] || echo "  []"
		for address; do
			echo "- {addresses: [\"$address\"], conditions: {$conditions}}"
		done
	} | write slice-web
}

backends() { patchbay_on node-a service list -o json | jq '[.[] | select(.name == "web") | .backends] | max'; }
page() {
	local text

	text=$(run_in "$1" curl -s -m 3 "http://$2/") || text="curl: $?"
	echo "${text% /}"
}
# bind_at POD|NODE PORT: what the echo server says that wants TCP and UDP on that port.
bind_at() {
	run_in "$1" timeout 0.5 "$PB_TOOLS/echo" "$2" 2>&1
	[ $? = 124 ] && echo free
}
metric() { in_net node-a curl -s http://127.0.0.1:9876/metrics | awk -v m="patchbay_plugin_kpr_$1" '$1 == m { print $2 }'; }

# A datagram client that is connected: says what it hears and what becomes of it. dd, for bash reads
# datagrams byte by byte.
# shellcheck disable=SC2016 # it expands this itself
client='
	exec 3<>/dev/udp/$0/$1
	echo one >&3
	echo "answer: $(dd bs=64 count=1 <&3 2>&1 | head -1)"
	dd bs=64 count=1 <&3
'
declare -A talker
# talk NAME WHERE ADDRESS PORT
talk() {
	spawn_in "$2" env LC_ALL=C bash -c "$client" "$3" "$4" >"$PB_TMP/talk-$1" 2>&1
	talker[$1]=$spawned
}
said() { grep -qF "$2" "$PB_TMP/talk-$1"; }
alive() { kill -0 "${talker[$1]}" 2>/dev/null; }

node_add node-a
node_add node-b
pod_add node-a client
pod_add node-a web-1
pod_add node-b web-2
for pod in web-1 web-2; do
	spawn_in $pod "$PB_TOOLS/httpd" $pod 8080
	spawn_in $pod "$PB_TOOLS/echo" 7007
	wait_until "run_in client curl -sf -m 1 http://$(pod_ip4 $pod):8080/" 10
done
agent_config node-a
node node-a
node node-b
write svc-web <<-END
	apiVersion: v1
	kind: Service
	metadata: {name: web, namespace: shop, uid: web}
	spec:
	  type: NodePort
	  clusterIP: 10.96.0.10
	  clusterIPs: [10.96.0.10]
	  ports:
	  - {name: http, protocol: TCP, port: 80, nodePort: 30080}
	  - {name: udp, protocol: UDP, port: 53, nodePort: 30053}
END
slice "ready: true" "$(pod_ip4 web-1)"

begin start
then_ok "the agent starts" agent_start node-a
then_within "the service is programmed" 10 '[ "$(backends)" = 1 ]'
[ $tap_failed -eq 0 ] || show_file "$(agent_log node-a)"

begin K14_K17_loopback_of_the_host
then_within "127.0.0.1" 10 '[ "$(page node-a 127.0.0.1:30080)" = web-1 ]'
then_is "K17_::ffff:127.0.0.1" "$(page node-a '[::ffff:127.0.0.1]:30080')" web-1

begin K15_loopback_of_a_pod
then_is "127.0.0.1 is refused" "$(page client 127.0.0.1:30080)" "curl: 7"
then_is "::ffff:127.0.0.1 is refused" "$(page client '[::ffff:127.0.0.1]:30080')" "curl: 7"

begin category6_node_ports_from_the_node_and_from_a_pod
for who in node-a client; do
	for at in node-a node-b; do
		then_is "$who to $at" "$(page $who "$(node_ip4 $at):30080")" web-1
		then_is "$who to ::ffff:$at" "$(page $who "[::ffff:$(node_ip4 $at)]:30080")" web-1
	done
done

begin K18_K19_K21_bind
then_like "K18_a node port is EADDRINUSE on the node" "$(bind_at node-a 30080)" "Address already in use"
then_like "K2_so is the one of UDP" "$(bind_at node-a 30053)" "Address already in use"
then_is "K21_another port of the range is free" "$(bind_at node-a 30081)" free
then_is "K19_a pod may bind the number" "$(bind_at client 30080)" free

begin K11_connected_UDP_sockets
given "sockets in a pod and on the node that are connected to the service, and one to the backend itself"
talk pod client 10.96.0.10 53
talk host node-a 10.96.0.10 53
talk direct client "$(pod_ip4 web-1)" 7007
for who in pod host direct; do
	then_within "$who has an answer" 10 "said $who 'answer: one'"
done
when "the backend drains"
slice "ready: false, serving: false, terminating: true" "$(pod_ip4 web-1)"
then_within "it isn't used for new calls any more" 10 '[ "$(page client 10.96.0.10)" = "curl: 7" ]'
then_is "the sockets stay" "$(alive pod && alive host && alive direct && echo yes)" yes
when "it is gone, another one is there"
slice "ready: true" "$(pod_ip4 web-2)"
for who in pod host; do
	then_within "$who is told ECONNABORTED" 10 "said $who 'Software caused connection abort'"
done
then_within "the metric counts them" 10 '[ "$(metric udp_sockets_destroyed)" = 2 ]'
then_is "the socket that named the backend itself stays" "$(alive direct && echo yes)" yes
talk again client 10.96.0.10 53
then_within "a new one reaches the other backend" 10 "said again 'answer: one'"
when "the agent is away while that one goes, too"
agent_stop node-a
slice "ready: true" "$(pod_ip4 web-1)"
then_ok "the agent starts" agent_start node-a
then_within "the socket is told then" 20 "said again 'Software caused connection abort'"

begin end
end_pid "${talker[direct]}"
then_is "no packet or call met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0
agent_stop node-a
then_ok "cleanup" in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(agent_dir node-a)/patchbay.yaml"
then_is "leaves nothing" "$(agent_leftovers node-a)" ""
done_testing
