# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Part "kube" of tests/bench/run: the agent at full size, on tests/bench/kube_server. The agent is
# measured as a whole, with plugins endpointslice and kpr, over HTTP/2 and TLS.

kube_server=$PB_TOP_BUILDDIR/tests/bench/kube_server
kube_probe=$PB_TOP_BUILDDIR/tests/bench/kube_probe
declare -A server_pid server_in server_out

kube_missing() {
	[ -x "$kube_server" ] || echo "kube_server is not built: apt install libssl-dev libnghttp2-dev zlib1g-dev, then configure again"
	command -v openssl >/dev/null || echo "apt install openssl"
}

kube_pki() {
	[ -f "$PB_TMP/kube.crt" ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench \
		-addext subjectAltName=IP:127.0.0.1 -keyout "$PB_TMP/kube.key" -out "$PB_TMP/kube.crt" 2>/dev/null
}

# kube_cluster NODE MINOR SERVICES ENDPOINTS SLICE BIG: a node whose agent, when it starts, finds
# such a cluster.
kube_cluster() {
	local node=$1 dir url fd

	shift
	node_add "$node"
	agent_config "$node"
	dir=$(agent_dir "$node")
	kube_pki || return
	mkfifo "$dir/in" "$dir/out" || return
	# Open for both, so that neither side ever waits for the other to open or sees an end.
	exec {fd}<>"$dir/in"
	server_in[$node]=$fd
	exec {fd}<>"$dir/out"
	server_out[$node]=$fd
	nsenter --net="/run/netns/$node" -- "$kube_server" "$PB_TMP/kube.crt" "$PB_TMP/kube.key" "$@" <"$dir/in" >"$dir/out" 2>"$dir/server.err" &
	server_pid[$node]=$!
	favour "${server_pid[$node]}"
	read -r -t 10 -u "$fd" _ url || return
	cat >"$dir/kubeconfig" <<-END
		apiVersion: v1
		kind: Config
		current-context: bench
		contexts: [{name: bench, context: {cluster: bench, user: bench}}]
		clusters: [{name: bench, cluster: {server: "$url", certificate-authority: $PB_TMP/kube.crt}}]
		users: [{name: bench, user: {token: bench}}]
	END
	sed -i "s|^kubernetes:.*|kubernetes: {source: api, kubeconfig: $dir/kubeconfig}|" "$dir/patchbay.yaml"
}

# kube_sync NODE SERVICES BACKENDS: starts the agent; prints what its first sync took.
kube_sync() {
	local node=$1

	nsenter --net="/run/netns/$node" -- "$PB_PATCHBAYD" --config "$(agent_dir "$node")/patchbay.yaml" >>"$(agent_log "$node")" 2>&1 &
	agent_pid[$node]=$!
	favour "${agent_pid[$node]}"
	"$kube_probe" sync "${agent_pid[$node]}" "$(agent_bpffs "$node")" "$2" "$3" >"$PB_TMP/sync" 2>&1
}

kube_ask() {
	local node=$1 command=$2

	shift 2
	favour "${agent_pid[$node]}"
	nice -n -20 "$kube_probe" "$command" "$(agent_dir "$node")/in" "$(agent_dir "$node")/out" "$(agent_bpffs "$node")" "$@" 2>&1
}

kube_end() {
	local node=$1

	[ -z "${agent_pid[$node]:-}" ] || agent_stop "$node"
	end_pid "${server_pid[$node]}"
	eval "exec ${server_in[$node]}>&- ${server_out[$node]}>&-"
}

peak_mib() { awk '$1 == "VmHWM:" { printf "%.1f", $2 / 1024 }' "/proc/$1/status"; }

# kube_metric NODE NAME: a number that the agent counts itself.
kube_metric() {
	in_net "$1" curl -s http://127.0.0.1:9876/metrics | awk -v name="$2" '$1 ~ "^" name "($|{)" { n += $2 } END { printf "%.0f", n }'
}

kube_broken() {
	broken "$1" "$(tail -n 1 "$2")"
	kube_end "$3"
}

# The size of the goal; a server that streams the objects (WatchList).
kube_stream() {
	local node=ka out

	kube_cluster $node 33 5000 50 100 0 || { kube_broken "the server" "$(agent_dir $node)/server.err" $node; return; }
	kube_sync $node 5000 50 || { kube_broken "first sync" "$PB_TMP/sync" $node; return; }
	goal "first sync, 5,000 services, 250,000 endpoints: CPU" "$(jq .cpu_ms "$PB_TMP/sync")" ms "<=" 2500
	goal "the same, start to the last backend in the map" "$(jq .ms "$PB_TMP/sync")" ms -
	# Memory has settled when what the first sync needed was given back.
	sleep 5
	goal "memory, peak" "$(peak_mib "${agent_pid[$node]}")" MiB "<=" 150
	goal "memory, steady" "$(rss_mib "${agent_pid[$node]}")" MiB "<=" 100
	out=$(kube_ask $node event 0 7 200) || { broken "one slice event" "$out"; kube_end $node; return; }
	goal "one slice event to map, p50 of 200" "$(jq .p50_ms <<<"$out")" ms -
	goal "one slice event to map, p99 of 200" "$(jq .p99_ms <<<"$out")" ms "<=" 10
	kube_end $node
}

# As many endpoints, 20,000 of them in one Service; a server that lists in pages.
kube_big() {
	local node=kb out writes

	kube_cluster $node 30 5000 46 100 20000 || { kube_broken "the server" "$(agent_dir $node)/server.err" $node; return; }
	kube_sync $node 5001 46 || { kube_broken "first sync by lists" "$PB_TMP/sync" $node; return; }
	goal "first sync by lists, one service of 20,000: CPU" "$(jq .cpu_ms "$PB_TMP/sync")" ms "<=" 2500
	goal "the same: memory, peak" "$(peak_mib "${agent_pid[$node]}")" MiB "<=" 150
	writes=$(kube_metric $node patchbay_plugin_kpr_map_writes)
	out=$(kube_ask $node event 5000 1 100) || { broken "one slice of 20,000 backends" "$out"; kube_end $node; return; }
	goal "one slice of 20,000 backends: event to map, p50 of 100" "$(jq .p50_ms <<<"$out")" ms -
	goal "one slice of 20,000 backends: event to map, p99 of 100" "$(jq .p99_ms <<<"$out")" ms "<=" 10
	goal "one slice of 20,000 backends: map writes of one event" \
		"$((($(kube_metric $node patchbay_plugin_kpr_map_writes) - writes) / 100))" "" -
	kube_end $node
}

# Slices of 100, one endpoint of a slice changes with each event.
kube_churn() {
	local node=kc out seconds=20

	kube_cluster $node 33 2500 100 100 0 || { kube_broken "the server" "$(agent_dir $node)/server.err" $node; return; }
	kube_sync $node 2500 100 || { kube_broken "churn" "$PB_TMP/sync" $node; return; }
	sleep 2
	out=$(kube_ask $node rate "${agent_pid[$node]}" 1000 $seconds) || { broken "1,000 slice events a second" "$out"; kube_end $node; return; }
	goal "1,000 slice events a second for $seconds s: CPU of one core" "$(jq .cpu_percent <<<"$out")" % "<=" 40
	goal "the same: bytes read" "$(jq '.bytes / 1048576 | round' <<<"$out")" MiB -
	goal "the same: the last event to map" "$(jq .last_event_ms <<<"$out")" ms -
	goal "memory after it" "$(rss_mib "${agent_pid[$node]}")" MiB "<=" 100
	kube_end $node
}

part_kube() {
	local missing

	heading "Kubernetes at full size (API server over HTTP/2 and TLS)"
	missing=$(kube_missing)
	[ -z "$missing" ] || { broken "Kubernetes at full size" "$missing"; return; }
	kube_stream
	kube_big
	kube_churn
}
