# shellcheck shell=bash
# shellcheck disable=SC2154 # node_index, pod_node, nodes and others are lib.sh's
# SPDX-License-Identifier: Apache-2.0
#
# A cluster of two nodes for the tests of Services: agents that read the same manifests, pods and
# processes of the host's network as backends, a client outside. Source it after lib.sh's sandbox:
#
#   outside 192.168.50.100, fd00:50::100, 198.51.100.1    a machine on the wire, no node: the
#           router that nodes send to what they don't know; drops what isn't its own
#   node-a  192.168.50.1, fd00:50::1, public 203.0.113.1
#   node-b  192.168.50.2, fd00:50::2, public 203.0.113.2
#
# Who asks is a place: a pod, a node (a process of the host's network) or "outside". What is asked
# is tests/tools/whoami, so that an answer names the backend and the client that it saw.

outside4=192.168.50.100
outside6=fd00:50::100
# shellcheck disable=SC2034 # for the tests
outside_far=198.51.100.1
PB_MANIFESTS=$PB_TMP/manifests
mkdir -p "$PB_MANIFESTS"

node_public4() { echo "203.0.113.${node_index[$1]}"; }

services_missing() {
	local tool

	agent_missing
	for tool in ask whoami load; do
		[ -x "$PB_TOOLS/$tool" ] || echo "tests/tools/$tool is not built"
	done
	command -v jq >/dev/null || echo "needs jq: apt install jq"
}

# ---- manifests ------------------------------------------------------------------------------

# write NAME: a manifest from standard input, complete at once.
write() {
	cat >"$PB_MANIFESTS/.$1.new"
	mv "$PB_MANIFESTS/.$1.new" "$PB_MANIFESTS/$1.yaml"
}
unwrite() { rm -f "$PB_MANIFESTS/$1.yaml"; }

node_manifest() {
	write "node-$1" <<-END
		apiVersion: v1
		kind: Node
		metadata: {name: $1, uid: $1}
		spec: {podCIDR: 10.244.${node_index[$1]}.0/24}
		status:
		  addresses:
		  - {type: InternalIP, address: $(node_ip4 "$1")}
		  - {type: InternalIP, address: "$(node_ip6 "$1")"}
		  - {type: ExternalIP, address: $(node_public4 "$1")}
	END
}

pod_manifest() {
	write "pod-$1" <<-END
		apiVersion: v1
		kind: Pod
		metadata: {name: $1, namespace: shop, uid: $1, labels: {app: $1}}
		spec: {nodeName: ${pod_node[$1]}, containers: [{name: main}]}
		status: {phase: Running, podIP: $(pod_ip4 "$1"), podIPs: [{ip: $(pod_ip4 "$1")}, {ip: "$(pod_ip6 "$1")"}]}
	END
}

# service NAME TYPE CLUSTER_IPS PORTS_YAML [FURTHER_SPEC [STATUS]]: flow style YAML throughout.
# CLUSTER_IPS is "A" or "A B" for both families.
service() {
	local ips

	# shellcheck disable=SC2086 # two addresses
	ips=$(printf '"%s", ' $3)
	write "svc-$1" <<-END
		apiVersion: v1
		kind: Service
		metadata: {name: $1, namespace: shop, uid: $1}
		spec: {type: $2, clusterIP: "${3%% *}", clusterIPs: [${ips%, }], ports: $4${5:+, $5}}
		status: {loadBalancer: {ingress: ${6:-[]}}}
	END
}

# slice NAME SERVICE FAMILY PORTS_YAML ENDPOINT...: an endpoint is "ADDRESS NODE [CONDITIONS]" with
# CONDITIONS like "ready: false, serving: true, terminating: true".
slice() {
	local file=$1 service=$2 family=$3 ports=$4 endpoint address node conditions

	shift 4
	{
		cat <<-END
			apiVersion: discovery.k8s.io/v1
			kind: EndpointSlice
			metadata: {name: $file, namespace: shop, labels: {kubernetes.io/service-name: $service}}
			addressType: $family
			ports: $ports
			endpoints:
		END
		[ $# -gt 0 ] || echo "  []"
		for endpoint; do
			read -r address node conditions <<<"$endpoint"
			echo "- {addresses: [\"$address\"], nodeName: $node, conditions: {${conditions:-ready: true}}}"
		done
	} | write "slice-$file"
}

pod_ep() { echo "$(pod_ip4 "$1") ${pod_node[$1]}"; }
pod_ep6() { echo "$(pod_ip6 "$1") ${pod_node[$1]}"; }
host_ep() { echo "$(node_ip4 "$1") $1"; }

# both NAME PORT [NODEPORT [TARGETPORT]]: TCP and UDP on one port, for service().
both() {
	local more=${3:+, nodePort: $3}

	echo "[{name: tcp, protocol: TCP, port: $2$more}, {name: udp, protocol: UDP, port: $2$more}]"
}
# target PORT: the same for slice().
target() { echo "[{name: tcp, protocol: TCP, port: $1}, {name: udp, protocol: UDP, port: $1}]"; }

# ---- the cluster ----------------------------------------------------------------------------

# A machine on the wire. Routes to virtual addresses are the tests' to add: route_outside.
outside_add() {
	local node

	netns_add outside
	sysctl_in outside net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	ip link add eth0 netns outside type veth peer name port100 netns wire
	ip -n wire link set port100 master br0 up
	ip -n outside link set eth0 up
	ip -n outside addr add "$outside4/24" dev eth0
	ip -n outside addr add 203.0.113.100/24 dev eth0
	ip -n outside addr add "$outside_far/24" dev eth0
	ip -n outside -6 addr add "$outside6/64" dev eth0 nodad
	mkdir -p "$PB_CGROUP/outside"
	for node in "${nodes[@]}"; do
		ip -n "$node" addr add "$(node_public4 "$node")/24" dev eth0
		ip -n "$node" route add default via "$outside4"
		ip -n "$node" -6 route add default via "$outside6"
	done
}

# route_outside ADDRESS NODE: the client outside reaches an address through a node.
route_outside() {
	case $1 in
	*:*) ip -n outside -6 route replace "$1" via "$(node_ip6 "$2")" ;;
	*) ip -n outside route replace "$1" via "$(node_ip4 "$2")" ;;
	esac
}

# cluster_add POD@NODE...: nodes, pods with a whoami on port 8080, the client outside.
cluster_add() {
	local pod node

	node_add node-a
	node_add node-b
	outside_add
	# Every refused datagram is to be told: the kernel would limit its ICMP errors.
	for node in "${nodes[@]}" outside; do sysctl_in "$node" net.ipv4.icmp_ratemask=0; done
	for pod; do
		node=${pod#*@}
		pod=${pod%@*}
		pod_add "$node" "$pod"
		pod_manifest "$pod"
		serve "$pod" "$pod" 8080
	done
	node_manifest node-a
	node_manifest node-b
}

# serve PLACE NAME PORT...: a whoami, waits until it answers.
serve() {
	local place=$1 name=$2

	shift 2
	spawn_in "$place" "$PB_TOOLS/whoami" "$name" "$@"
	# shellcheck disable=SC2034 # for the caller
	served=$spawned
	wait_until "[ \"\$(ask $place tcp 127.0.0.1 $1)\" = $name ]" 10
}

# ask PLACE [OPTIONS] PROTO ADDRESS PORT: one word, see tests/tools/ask.c.
ask() {
	local place=$1

	shift
	run_in "$place" "$PB_TOOLS/ask" "$@"
}

# who_of PLACE TIMES PROTO ADDRESS PORT: the different words of many questions, sorted.
who_of() {
	local place=$1 times=$2

	shift 2
	ask "$place" --times "$times" "$@" | sort -u | paste -sd' '
}

# ---- agents ---------------------------------------------------------------------------------

# services_yaml MODE ALGORITHM [KPR_YAML]: the plugins' section. MODE: snat, dsr, hybrid.
services_yaml() {
	local kpr="algorithm: $2${3:+, $3}"

	case $1 in
	snat) echo "{endpointslice: {}, kpr: {$kpr}}" ;;
	*) echo "{endpointslice: {}, kpr: {$kpr}, dsr: {mode: $1}}" ;;
	esac
}

# agents_start MODE ALGORITHM [KPR_YAML [EXTRA_YAML]]: on both nodes, with this configuration.
agents_start() {
	local node

	for node in "${nodes[@]}"; do
		agent_config "$node" "$(services_yaml "$1" "$2" "${3:-}")" "${4:-}"
		agent_start "$node" || return
	done
	for node in "${nodes[@]}"; do
		wait_until "hooked $node" 20 || { note "pods of $node have no hooks"; return 1; }
	done
}

agents_stop() {
	local node

	for node in "${nodes[@]}"; do
		[ -z "${agent_pid[$node]:-}" ] || agent_stop "$node"
	done
}

# Every pod of the node has its chains.
hooked() {
	local pod n=0

	for pod in "${!pod_node[@]}"; do
		[ "${pod_node[$pod]}" != "$1" ] || n=$((n + 1))
	done
	[ "$(patchbay_on "$1" -o json endpoint list | jq '[(.items? // .)[] | select(.interface != "")] | length')" = "$n" ]
}

# programmed NODE NAME [STATE]: the node's kpr has written the Service: all of its frontends are "ok",
# or have no backends, or STATE.
programmed() {
	patchbay_on "$1" service list -o json | jq -e --arg n "$2" --arg s "${3:-}" '
		[.[] | select(.name == $n) | .state] | length > 0 and
			all(if $s != "" then . == $s else . == "ok" or startswith("no backends") end)' >/dev/null
}

# everywhere NAME [STATE]: on all nodes within ten seconds.
everywhere() {
	local node

	for node in "${nodes[@]}"; do
		wait_until "programmed $node $1 '${2:-}'" 10 || {
			note "Service $1 isn't ${2:-programmed} on $node:"
			patchbay_on "$node" service list | sed 's/^/#     /'
			return 1
		}
	done
}

# No packet met a hole in a chain, and the agents end well.
services_end() {
	local node

	begin end
	for node in "${nodes[@]}"; do
		then_is "no packet or call met a hole on $node" \
			"$(patchbay_on "$node" status -o json | jq .datapath.missed)" 0
		agent_stop "$node"
		then_ok "cleanup of $node" in_net "$node" "$PB_PATCHBAYD" --cleanup -c "$(agent_dir "$node")/patchbay.yaml"
		then_is "leaves nothing" "$(agent_leftovers "$node")" ""
	done
}

# What helps when a test failed.
services_debug() {
	local node

	[ "$tap_failed" -ne 0 ] || return 0
	for node in "${nodes[@]}"; do
		note "log of $node:"
		show_file "$(agent_log "$node")" 30
		note "Services on $node:"
		patchbay_on "$node" service list 2>&1 | sed 's/^/#     /'
		note "drops on $node:"
		patchbay_on "$node" status -o json 2>/dev/null | jq -c '.datapath.drops[]?' | sed 's/^/#     /'
	done
}

# ---- TFTP: dnsmasq serves, curl asks ----------------------------------------------------------

tftp_missing() {
	command -v dnsmasq >/dev/null || echo "needs dnsmasq: apt install dnsmasq-base"
	curl --version | grep -qw tftp || echo "curl has no TFTP"
}

# tftp_serve POD: the file "hello" says the pod's name. Answers come from the port that was asked,
# as they must behind any address translation.
tftp_serve() {
	mkdir -p "$PB_TMP/tftp/$1"
	echo "hello from $1" >"$PB_TMP/tftp/$1/hello"
	spawn_in "$1" dnsmasq --no-daemon --conf-file=/dev/null --port=0 --enable-tftp \
		--tftp-root="$PB_TMP/tftp/$1" --tftp-single-port --user=root --pid-file= 2>/dev/null
	wait_until "[ \"\$(tftp $1 127.0.0.1)\" = $1 ]" 10
}

# tftp PLACE ADDRESS [PORT [CURL_OPTIONS...]]: the name of who answered.
tftp() {
	local place=$1 at=$2 port=${3:-69}

	shift
	shift
	[ $# -eq 0 ] || shift
	case $at in *:*) at="[$at]" ;; esac
	run_in "$place" curl -s -m 3 "$@" "tftp://$at:$port/hello" | sed 's/^hello from //'
}
