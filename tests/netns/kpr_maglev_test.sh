#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Maglev tables of two agents that were told of the backends in different order, and what the modes
# of kpr make of a node: its ports, a kube-proxy beside it.

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
[ -x "$PB_TOOLS/httpd" ] || skip_all "tests/tools/httpd is not built"
command -v jq >/dev/null || skip_all "needs jq: apt install jq"

# write NODE NAME: a manifest from standard input, complete at once.
write() {
	local dir

	dir=$(agent_dir "$1")/manifests
	cat >"$dir/.$2.new"
	mv "$dir/.$2.new" "$dir/$2.yaml"
}

# service NODE NAME ADDRESS NODEPORT [ANNOTATIONS]
service() {
	write "$1" "svc-$2" <<-END
		apiVersion: v1
		kind: Service
		metadata: {name: $2, namespace: shop, uid: $2, annotations: {${5:-}}}
		spec: {type: NodePort, clusterIP: "$3", clusterIPs: ["$3"], ports: [{protocol: TCP, port: 80, nodePort: $4}]}
	END
}

# slice NODE NAME SERVICE ADDRESS...
slice() {
	local node=$1 name=$2 service=$3 address

	shift 3
	{
		cat <<-END
			apiVersion: discovery.k8s.io/v1
			kind: EndpointSlice
			metadata: {name: $name, namespace: shop, labels: {kubernetes.io/service-name: $service}}
			addressType: IPv4
			ports: [{name: "", protocol: TCP, port: 8080}]
			endpoints:
		END
		for address; do
			echo "- {addresses: [\"$address\"], conditions: {ready: true}}"
		done
	} | write "$node" "$name"
}

tables() { patchbay_on "$1" lb maglev -o json; }
# checksum NODE SERVICE: of its table, "" while it changes.
checksum() {
	tables "$1" | jq -r "[.[] | select(.service == \"shop/$2\" and .state == \"ok\") | .checksum][0] // \"\""
}
backends() { tables "$1" | jq "[.[] | select(.service == \"shop/$2\") | .backends][0]"; }
same_tables() { [ -n "$(checksum node-a web)" ] && [ "$(checksum node-a web)" = "$(checksum node-b web)" ]; }
verbose() { patchbay_on "$1" status --verbose -o json | jq -r ".service.KubeProxyReplacement.$2"; }
reserved() { in_net "$1" cat /proc/sys/net/ipv4/ip_local_reserved_ports; }

kpr='algorithm: maglev, maglev: {table_size: 4093, tables_max: 3}'
node_add node-a
node_add node-b
agent_config node-a "{endpointslice: {}, kpr: {$kpr}}"
agent_config node-b "{endpointslice: {}, kpr: {$kpr}}"
sysctl_in node-a net.ipv4.ip_local_port_range="15000 60999" net.ipv4.ip_local_reserved_ports=8080

service node-a web 10.96.0.1 30080
service node-b web 10.96.0.1 30080
slice node-a one web 10.244.1.1 10.244.1.2 10.244.1.3 10.244.1.4
slice node-a two web 10.244.2.1 10.244.2.2 10.244.2.3
slice node-b two web 10.244.2.3 10.244.1.4 10.244.1.1
slice node-b zero web 10.244.1.3 10.244.2.1 10.244.2.2 10.244.1.2

begin maglev
then_ok "the agent of node-a starts" agent_start node-a
then_ok "the agent of node-b starts" agent_start node-b
[ $tap_failed -eq 0 ] || show_file "$(agent_log node-a)"
then_within "both have the same table, whatever the order in which they were told" 10 same_tables
then_is "of seven backends" "$(backends node-a web) $(backends node-b web)" "7 7"
then_is "shares differ by one element at most" \
	"$(tables node-a | jq -c '[.[] | .max - .min <= 1] | unique')" "[true]"
then_is "the shares of a Service are all of the table" \
	"$(patchbay_on node-a lb maglev shop/web -o json |
		jq '[group_by(.frontend)[] | [.[].elements] | add] | unique | .[0]')" 4093
then_like "as a table for people" "$(patchbay_on node-a lb maglev)" "SERVICE .* CHECKSUM"

begin K53_a_backend_goes_on_both_nodes
before=$(checksum node-a web)
slice node-a two web 10.244.2.1 10.244.2.2
slice node-b two web 10.244.1.4 10.244.1.1
then_within "the tables follow and are equal again" 10 \
	"same_tables && [ \"\$(checksum node-a web)\" != $before ] && [ \"\$(backends node-b web)\" = 6 ]"

begin K55_a_restart_keeps_the_tables
before=$(checksum node-a web)
elements() { patchbay_on node-a map dump kpr/kpr_maglev -o json | sha256sum; }
map_before=$(elements)
agent_stop node-a KILL
then_ok "the agent starts again" agent_start node-a
then_within "the table is the same" 10 "[ \"\$(checksum node-a web)\" = $before ]"
then_is "element by element" "$(elements)" "$map_before"

begin annotation_and_room
service node-a calm 10.96.0.2 30081 'service.cilium.io/lb-algorithm: random'
service node-a second 10.96.0.3 30082
service node-a third 10.96.0.4 30083
service node-a fourth 10.96.0.5 30084
for name in calm second third fourth; do
	slice node-a "$name" "$name" 10.244.3.1 10.244.3.2
done
in_state() {
	patchbay_on node-a service list -o json |
		jq -e "[.[] | select(.state | contains(\"no room for a Maglev table\")) | .name] | unique | length == $1"
}
then_within "one Service too many works without a table" 10 "in_state 1"
then_is "as many tables as there is room for" \
	"$(tables node-a | jq '[.[].service] | unique | length')" 3
then_is "one that wants none has none" "$(tables node-a | jq '[.[] | select(.service == "shop/calm")] | length')" 0
rm "$(agent_dir node-a)/manifests/svc-second.yaml"
then_within "it gets the table of one that goes" 10 "in_state 0"

begin status_verbose
then_is "the mode" "$(verbose node-a mode)" probe
then_is "the kernel has what the packet programs need" "$(verbose node-a 'features."redirect-neigh"')" yes
then_like "NodePort and its range" "$(verbose node-a services.NodePort)" "enabled \(range 30000-32767\)"
then_is "kube-proxy" "$(verbose node-a kube_proxy)" "not found"
then_is "status alone doesn't ask plugins" "$(patchbay_on node-a status -o json | jq .service)" null
then_fails "another word makes no sense" "makes no sense" patchbay_on node-a status loud

begin node_port_range
then_is "what was reserved stays, the range is added" "$(reserved node-a)" "8080,30000-32767"
then_is "and said to be" "$(verbose node-a ports_reserved)" yes
then_is "where it doesn't overlap nothing is reserved" "$(reserved node-b)" ""
then_is "and need not be" "$(verbose node-b ports_reserved)" "not needed"

begin kube_proxy_beside
spawn_in node-b "$PB_TOOLS/httpd" kube-proxy 10256
listener=$spawned
wait_until "in_net node-b ss -ltn | grep -q ':10256 '" 10
then_ok "probe: a reload goes on" patchbay_on node-b plugin reload kpr
then_like "kube-proxy is seen" "$(verbose node-b kube_proxy)" "healthz port 10256"
then_is "bind protection is off" "$(verbose node-b bind_protection)" "disabled (kube-proxy is here)"
agent_config node-b "{endpointslice: {}, kpr: {$kpr, mode: strict}}"
kill -HUP "${agent_pid[node-b]}"
then_within "strict: refused, with what is in the way" 10 \
	"patchbay_on node-b status -o json | jq -r .config_error | grep -q 'kube-proxy is here too'"
then_within "the old generation serves" 10 "same_tables || [ -n \"\$(checksum node-b web)\" ]"
end_pid "$listener"
kill -HUP "${agent_pid[node-b]}"
then_within "without it strict is taken" 10 "[ \"\$(verbose node-b mode)\" = strict ]"
agent_config node-b "{endpointslice: {}, kpr: {$kpr, mode: disabled}}"
kill -HUP "${agent_pid[node-b]}"
then_within "disabled: no NodePort" 10 "[ \"\$(verbose node-b services.NodePort)\" = 'disabled (mode)' ]"
then_is "its frontends are ClusterIPs only" \
	"$(patchbay_on node-b service list -o json | jq -c '[.[].frontend] | unique')" '["10.96.0.1:80"]'
then_is "and no packet program runs" \
	"$(patchbay_on node-b chain show -o json | jq '[.[] | select(.plugin == "kpr" and .hook == "dev-ingress")] | length')" 0

begin end
for node in node-a node-b; do
	then_is "$node: no packet or call met a hole" \
		"$(patchbay_on $node status -o json | jq .datapath.missed)" 0
	agent_stop $node
	then_ok "$node: cleanup" in_net $node "$PB_PATCHBAYD" --cleanup -c "$(agent_dir $node)/patchbay.yaml"
	then_is "$node: leaves nothing" "$(agent_leftovers $node)" ""
done
done_testing
