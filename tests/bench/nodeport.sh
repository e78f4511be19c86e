# shellcheck shell=bash
# shellcheck disable=SC2154 # rounds and others are the bench's
# SPDX-License-Identifier: Apache-2.0
#
# Part nodeport of tests/bench/run: a client outside, a node with the NodePort, a backend pod on the
# next node, against plain routing over the same three machines. Each variant has two nodes of its
# own, VARIANT (the one that is asked) and VARIANT-b (its backend's); the client is one for all.
#
#   routing   the client asks the pod, the node forwards both ways
#   kpr-snat, kpr-dsr   the agent on the node; with dsr on the backend's node too, which answers
#             the client directly
#   nftables, iptables   rules as kube-proxy writes them, on the node

np_client4=192.168.50.250
np_port=30080

np_client_add() {
	wire_add
	netns_add np-client
	ip link add eth0 netns np-client type veth peer name port250 netns wire
	ip -n wire link set port250 master br0 up
	ip -n np-client link set eth0 up
	ip -n np-client addr add $np_client4/24 dev eth0
	mkdir -p "$PB_CGROUP/np-client"
}

# The address of the backend: ten of them, as endpoints of the last service.
np_prefix() { echo "10.244.${node_index[$1-b]}"; }

# np_nodes VARIANT: the two nodes and the server. All machines are on one wire: nobody is to find
# out that there is a shorter way.
np_nodes() {
	local node k

	for node in "$1" "$1-b"; do
		node_add "$node"
		sysctl_in "$node" net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
			net.ipv4.conf.eth0.send_redirects=0 net.ipv4.conf.all.accept_redirects=0
	done
	pod_add "$1-b" "s_$1"
	for k in {100..109}; do
		ip -n "s_$1" addr add "$(np_prefix "$1").$k/32" dev eth0
		ip -n "$1-b" route add "$(np_prefix "$1").$k" dev "$(pod_link "s_$1")"
	done
	spawn_in "s_$1" "${pinned[@]}" "$PB_TOOLS/echo" --serial 8080
}

np_add_routing() {
	np_nodes "$1"
	ip -n np-client route add "$(np_prefix "$1").0/24" via "$(node_ip4 "$1")"
	ip -n "$1-b" route add $np_client4 via "$(node_ip4 "$1")"
}

# np_manifests VARIANT SERVICES: the last service is a NodePort.
np_manifests() {
	local dir=$PB_TMP/np-manifests/$1 node

	make_services "$dir" "$2" 10 "$(np_prefix "$1")"
	sed -i "/\"name\":\"s$2\",/{s/\"type\":\"ClusterIP\"/\"type\":\"NodePort\"/;s/\"port\":80,/\"port\":80,\"nodePort\":$np_port,/}" \
		"$dir"/services-*.json
	for node in "$1" "$1-b"; do
		cat <<-END
			apiVersion: v1
			kind: Node
			metadata: {name: $node, uid: $node}
			status: {addresses: [{type: InternalIP, address: $(node_ip4 "$node")}]}
			---
		END
	done >"$dir/cluster.yaml"
	pod_manifest "$1-b" "s_$1" >>"$dir/cluster.yaml"
}

# np_add_kpr VARIANT SERVICES PLUGINS NODE...: agents on these nodes.
np_add_kpr() {
	local name=$1 services=$2 plugins=$3 node

	shift 3
	np_nodes "$name"
	np_manifests "$name" "$services"
	for node; do
		PB_MANIFESTS=$PB_TMP/np-manifests/$name agent_config "$node" "$plugins"
		agent_start "$node" || return
	done
}

np_add_iptables() {
	np_nodes "$1"
	iptables_rules "$2" "$(np_prefix "$1")" | awk -v n="$2" -v port=$np_port '
		$1 == "COMMIT" {
			print ":KUBE-NODEPORTS - [0:0]\n:KUBE-EXT-" n " - [0:0]"
			print "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
			print "-A KUBE-NODEPORTS -p tcp -m tcp --dport " port " -j KUBE-EXT-" n
			print "-A KUBE-EXT-" n " -j KUBE-MARK-MASQ\n-A KUBE-EXT-" n " -j KUBE-SVC-" n
		}
		{ print }' >"$PB_TMP/rules"
	in_net "$1" iptables-nft-restore <"$PB_TMP/rules"
}

np_add_nftables() {
	local file

	np_nodes "$1"
	mkdir -p "$PB_TMP/np-$1"
	nftables_rules "$2" "$(np_prefix "$1")" "$PB_TMP/np-$1"
	cat >"$PB_TMP/np-$1/nft-9999" <<-END
		add map ip kube service-nodeports { type inet_proto . inet_service : verdict; }
		add chain ip kube ext-$2
		add rule ip kube ext-$2 jump mark-masq
		add rule ip kube ext-$2 goto svc-$2
		add element ip kube service-nodeports { tcp . $np_port : goto ext-$2 }
		add rule ip kube services fib daddr type local meta l4proto . th dport vmap @service-nodeports
	END
	for file in "$PB_TMP/np-$1"/nft-*; do
		in_net "$1" nft -f "$file" || return
	done
}

# np_add KIND SERVICES: sets a variant up and waits until it answers.
np_add() {
	local kind=$1 n=$2 name

	name=$(np_name "$kind" "$n")
	case $kind in
	routing*) np_add_routing "$name" ;;
	kpr-snat) np_add_kpr "$name" "$n" "{endpointslice: {}, kpr: {}}" "$name" ;;
	kpr-dsr)
		np_add_kpr "$name" "$n" "{endpointslice: {}, kpr: {}, dsr: {mode: dsr}}" "$name" "$name-b"
		;;
	*) "np_add_$kind" "$name" "$n" ;;
	esac || return
	# shellcheck disable=SC2046 # address and port
	wait_until "run_in np-client $PB_TOOLS/load --count 1 --timeout-ms 100 --seconds 1 crr $(np_target "$name")" 60 ||
		{ echo "no answer at $(np_target "$name")"; return 1; }
}

np_name() {
	case $1 in
	routing*) echo "$1" ;;
	*) echo "$1-$2" ;;
	esac
}

np_target() {
	case $1 in
	routing*) echo "$(np_prefix "$1").100 8080" ;;
	*) echo "$(node_ip4 "$1") $np_port" ;;
	esac
}

# np_measure VARIANT MODE: one slice; prints a rate.
np_measure() {
	local target out

	read -ra target <<<"$(np_target "$1")"
	out=$(run_in np-client "${pinned[@]}" "$PB_TOOLS/load" --seconds "$slice" "$2" "${target[@]}") || {
		echo "bench: nodeport $1 $2: $out" >&2
		return 1
	}
	jq -r .rate <<<"$out"
}

np_setup() {
	local n kind

	np_client_add
	np_variants=()
	for n in 1 1000 10000; do
		for kind in routing routing-again kpr-snat kpr-dsr nftables iptables; do
			case $kind in
			routing*) [ "$n" = 1 ] || continue ;;
			iptables) command -v iptables-nft-restore >/dev/null || { broken "$kind" "apt install iptables"; continue; } ;;
			nftables) command -v nft >/dev/null || { broken "$kind" "apt install nftables"; continue; } ;;
			esac
			progress "setting up $kind with $n services"
			if np_add $kind "$n" >"$PB_TMP/setup" 2>&1; then
				np_variants+=("$(np_name $kind "$n")")
			else
				broken "NodePort, $kind, $n services" "$(tail -n 1 "$PB_TMP/setup")"
			fi
		done
	done
}

# np_ratio VARIANT MODE [BASE]
np_ratio() { ratio_of "$1" "$2" "${3:-routing}" "$PB_TMP/np-rates"; }
np_rate() { rate_of "$1" "$2" "$PB_TMP/np-rates"; }

np_table() {
	local name

	printf '  %-18s %10s %8s %10s %8s\n' variant "CRR /s" ratio "RR /s" ratio
	for name in "${np_variants[@]}"; do
		printf '  %-18s %10s %8s %10s %8s\n' "$name" "$(np_rate "$name" crr)" "$(np_ratio "$name" crr)" \
			"$(np_rate "$name" rr)" "$(np_ratio "$name" rr)"
		jq -nc --arg variant "nodeport $name" --arg crr "$(np_ratio "$name" crr)" \
			--arg rr "$(np_ratio "$name" rr)" \
			'{$variant} + ({$crr, $rr} | map_values(tonumber? // null))' >>"$PB_TMP/ratios"
	done
	echo
}

np_has() { [[ " ${np_variants[*]} " == *" $1 "* ]]; }

np_goals() {
	local mode n rules least

	goal "NodePort CRR, routing again / routing (the noise)" "$(np_ratio routing-again crr)" "" -
	for mode in snat dsr; do
		least=0.93
		[ $mode = snat ] || least=0.95
		for n in 1 10000; do
			np_has "kpr-$mode-$n" || continue
			goal "NodePort CRR, kpr $mode with $n services / routing" "$(np_ratio "kpr-$mode-$n" crr)" "" ">=" $least
			goal "NodePort RR, kpr $mode with $n services / routing" "$(np_ratio "kpr-$mode-$n" rr)" "" ">=" 0.98
		done
		np_has "kpr-$mode-1" || continue
		for rules in nftables iptables; do
			np_has $rules-1 || continue
			goal "NodePort CRR, kpr $mode / $rules, 1 service" "$(np_ratio kpr-$mode-1 crr $rules-1)" "" ">=" 1
			goal "NodePort RR, kpr $mode / $rules, 1 service" "$(np_ratio kpr-$mode-1 rr $rules-1)" "" ">=" 1
		done
		np_has "kpr-$mode-10000" &&
			goal "NodePort CRR, kpr $mode, 10,000 services / 1" "$(np_ratio kpr-$mode-10000 crr kpr-$mode-1)" "" ">=" 0.97
	done
}

part_nodeport() {
	local round mode name rate

	heading "NodePort through one node against routing through it (paired medians of $rounds rounds of $slice s)"
	np_setup
	np_has routing || { broken "NodePort" "plain routing doesn't work"; return; }
	: >"$PB_TMP/np-rates"
	for ((round = 0; round < rounds; round++)); do
		progress "round $((round + 1)) of $rounds"
		for mode in crr rr; do
			for name in "${np_variants[@]}"; do
				rate=$(np_measure "$name" $mode) || continue
				echo "$round $mode $name $rate" >>"$PB_TMP/np-rates"
			done
		done
	done
	np_table
	np_goals
}
