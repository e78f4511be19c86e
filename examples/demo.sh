#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The demo: two nodes, four pods, an agent on each node, a client outside of the cluster, and a
# plugin that is swapped while connections run through it. Everything lives in a private sandbox
# (see tests/netns/lib.sh); when it ends nothing is left. With --keep it stays up and says how to
# look around.
#
# Manifests are read from examples/manifests.

set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PB_TOP_SRCDIR=$(dirname "$here")
# shellcheck source=tests/netns/lib.sh
. "$PB_TOP_SRCDIR/tests/netns/lib.sh"

vip=10.96.0.10
vip6=fd00:96::10
node_port=30080
outside=192.168.50.100
reloads=20
bold=''
plain=''
if [ -t 1 ]; then
	bold=$'\e[1m'
	plain=$'\e[0m'
fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '  %s\n' "$@"; }
indent() { sed 's/^/    /'; }

give_up() {
	tell "" "the demo stopped: $*"
	for node in node-a node-b; do
		tell "last lines of the log of the agent on $node:"
		tail -n 8 "$(agent_log "$node")" 2>/dev/null | indent
	done
	exit 1
}

picture() {
	cat <<-'END'

	      node-a  192.168.50.1                 node-b  192.168.50.2
	    ┌───────────────────────┐            ┌───────────────────────┐
	    │ patchbayd             │            │             patchbayd │
	    │   endpointslice, kpr  ├────────────┤   endpointslice, kpr  │
	    │ [client]    [web-1]   │            │   [web-2]   [web-3]   │
	    └───────────────────────┘            └───────────────────────┘
	      service shop/web: 10.96.0.10:80 and [fd00:96::10]:80
	      service shop/hello: port 30080 of every node, asked from 192.168.50.100 outside

	END
}

# ---- set-up ---------------------------------------------------------------------------------

make_topology() {
	node_add node-a
	node_add node-b
	pod_add node-a web-1
	pod_add node-a client
	pod_add node-b web-2
	pod_add node-b web-3
	make_outside
}

# A machine on the nodes' network that isn't part of the cluster and knows no pod's address.
make_outside() {
	netns_add outside
	ip link add eth0 netns outside type veth peer name outside netns wire
	ip -n wire link set outside master br0 up
	ip -n outside addr add $outside/24 dev eth0
	ip -n outside link set eth0 up
}

start_servers() {
	local pod

	for pod in web-1 web-2 web-3; do
		spawn_in "$pod" "$PB_TOOLS/httpd" "$pod" 8080
		spawn_in "$pod" "$PB_TOOLS/whoami" "$pod" 9090
		wait_until "run_in client curl -sf -m 1 http://$(pod_ip4 "$pod"):8080/" 5 ||
			give_up "the web server in pod $pod did not come up"
	done
	spawn_in web-2 "$PB_TOOLS/echo" 7007
}

start_agents() {
	mkdir "$PB_TMP/manifests"
	cp "$here"/manifests/*.yaml "$PB_TMP/manifests/"
	export PB_MANIFESTS=$PB_TMP/manifests
	for node in node-a node-b; do
		agent_config "$node"
		agent_start "$node" || give_up "the agent on $node did not start"
	done
	wait_until "run_in client curl -sf -m 1 http://$vip/" 10 || give_up "service shop/web is not reached"
}

# ---- what is shown --------------------------------------------------------------------------

# bars JSON: the answers of each backend as a bar chart.
bars() {
	local name count share

	jq -r '.answered as $all | .backends | to_entries | sort_by(.key)[] |
		"\(.key) \(.value) \(.value * 100 / $all | round)"' <<<"$1" |
		while read -r name count share; do
			printf '    %-6s %5d  %s %d%%\n' "$name" "$count" \
				"$(printf '%*s' "$((share / 2))" '' | sed 's/ /█/g')" "$share"
		done
}

# requests COUNT ADDRESS: connections from the client pod; prints the result as JSON.
requests() { run_in client "$PB_TOOLS/load" --workers 4 --count "$1" --seconds 30 http "$2" 80; }

summary() { jq -r '"    \(.sent) requests, \(.failed + .lost + .wrong) failed, \(.p50_us | round) µs median"' <<<"$1"; }

show_services() {
	title "Services as the agent on node-a sees them   (patchbay service list)"
	patchbay_on node-a service list | indent
}

show_spread() {
	local result

	title "600 connections from pod client to http://$vip (IPv4) and 600 to http://[$vip6] (IPv6)"
	for address in $vip $vip6; do
		result=$(requests 600 "$address") || give_up "requests to $address failed: $result"
		bars "$result"
		summary "$result"
	done
	title "The same for UDP: datagrams to the service shop/echo"
	result=$(run_in client "$PB_TOOLS/load" --count 500 --seconds 20 udp 10.96.0.11 7) ||
		give_up "UDP through the service failed: $result"
	summary "$result"
}

only_two_answer() { ! requests 60 $vip | jq -e '.backends["web-3"]'; }

show_endpoint_gone() {
	local start result

	title "Endpoint web-3 goes away: its line is deleted from manifests/web.yaml"
	start=$(date +%s%N)
	grep -v '10\.244\.2\.3' "$PB_TMP/manifests/web.yaml" >"$PB_TMP/web.yaml"
	cp "$PB_TMP/web.yaml" "$PB_TMP/manifests/.web.yaml.new"
	mv "$PB_TMP/manifests/.web.yaml.new" "$PB_TMP/manifests/web.yaml"
	wait_until only_two_answer 10 || give_up "web-3 still gets connections"
	tell "followed within $((($(date +%s%N) - start) / 1000000)) ms (measured by 60 new connections)"
	result=$(requests 600 $vip) || give_up "requests failed: $result"
	bars "$result"
	summary "$result"
}

# ---- from outside ---------------------------------------------------------------------------

# 60 connections to the NodePort of node-a. A backend answers with its name and the client it saw.
ask_from_outside() {
	in_net outside "$PB_TOOLS/ask" -v --times 60 tcp 192.168.50.1 $node_port >"$PB_TMP/answers"
	[ "$(grep -c '^web-[123] ' "$PB_TMP/answers")" = 60 ] ||
		give_up "a request from outside failed: $(grep -v '^web-[123] ' "$PB_TMP/answers" | head -n 1)"
	cut -d' ' -f1,2 "$PB_TMP/answers" | sort | uniq -c |
		while read -r count name client; do
			printf '    %-6s %3d  saw %-15s %s\n' "$name" "$count" "$client" "$(meaning "$client")"
		done
}

meaning() {
	case $1 in
	"$outside") echo "the client" ;;
	192.168.50.*) echo "a node, not the client" ;;
	esac
}

# The other node, which answers, has to understand before the first one begins.
load_dsr() {
	for node in node-b node-a; do
		patchbay_on "$node" plugin load dsr >/dev/null || give_up "plugin dsr could not be loaded on $node"
	done
}

show_outside() {
	title "60 connections from outside to a NodePort: http://192.168.50.1:$node_port"
	cat <<-'END'
		    client ──────> node-a ──────> pod on node-b
		           <──────        <──────               translated there and back (SNAT)

	END
	ask_from_outside
	title "The same with direct server return   (patchbay plugin load dsr, on both nodes)"
	cat <<-'END'
		    client ──────> node-a ──────> pod on node-b
		           <─────────────────────               node-b answers the client itself

	END
	load_dsr
	ask_from_outside
}

# ---- the plugin is swapped under load -------------------------------------------------------

reload_all() {
	local i

	for ((i = 1; i <= reloads; i++)); do
		patchbay_on node-a -o json plugin reload kpr >>"$PB_TMP/reloads" 2>"$PB_TMP/reload.err" ||
			give_up "reload $i failed: $(cat "$PB_TMP/reload.err")"
		[ ! -t 1 ] || printf '\r    %d of %d reloads' "$i" "$reloads"
	done
	[ ! -t 1 ] || printf '\r%40s\r' ''
}

show_reloads() {
	local load result start

	title "$reloads reloads of plugin kpr while connections run through it   (patchbay plugin reload kpr)"
	spawn_in client "$PB_TOOLS/load" --workers 4 --seconds 300 http $vip 80 >"$PB_TMP/load"
	load=$spawned
	start=$(date +%s%N)
	reload_all
	kill -TERM "$load"
	wait "$load"
	result=$(cat "$PB_TMP/load")
	tell "$(jq -r '"requests sent     \(.sent)   (\(.rate | round) a second)"' <<<"$result")" \
		"$(jq -r '"requests failed   \(.failed + .lost + .wrong)"' <<<"$result")" \
		"reloads           $reloads in $((($(date +%s%N) - start) / 1000000)) ms" \
		"$(jq -rs 'map(if type == "array" then .[0] else . end | .swap_us / 1000) | sort |
			"swap latency      min \(.[0] | . * 100 | round / 100) ms, median \(.[length / 2 | floor] | . * 100 | round / 100) ms, max \(.[-1] | . * 100 | round / 100) ms   (from quiesce of the old to the new one serving)"' \
			"$PB_TMP/reloads")"
	[ "$(jq '.failed + .lost + .wrong' <<<"$result")" = 0 ] || give_up "requests failed: $result"
	patchbay_on node-a plugin list | indent
}

# ---- the end --------------------------------------------------------------------------------

stop_all() {
	title "Clean-up"
	for node in node-a node-b; do
		agent_stop "$node"
		"$PB_PATCHBAYD" --config "$(agent_dir "$node")/patchbay.yaml" --cleanup >>"$(agent_log "$node")" 2>&1
		left=$(agent_leftovers "$node")
		[ -z "$left" ] || give_up "patchbayd --cleanup on $node left: $left"
	done
	tell "agents stopped, pins and links removed; the sandbox ends with this script"
}

# Runs until the outer process is told to end; the shell that looks around reads the topology.
stay() {
	declare -p node_index pod_node pod_index pods_on nodes >"$PB_TMP/topology"
	touch "$PB_TOP_BUILDDIR/demo/ready"
	exec >/dev/null 2>&1
	sleep infinity &
	wait $!
}

demo() {
	title "Patchbay demo: two nodes, four pods, a client outside"
	picture
	make_topology
	start_servers
	start_agents
	show_services
	show_spread
	show_outside
	show_endpoint_gone
	show_reloads
}

write_shell() {
	cat >"$PB_TOP_BUILDDIR/demo/shell" <<-END
		#!/bin/bash
		# Made by examples/demo.sh --keep: a shell in the demo's sandbox.
		pid=\$(cat "$PB_TOP_BUILDDIR/demo/pid" 2>/dev/null) && [ -e "/proc/\$pid" ] || {
			echo "the demo isn't up; start it: sudo $PB_TOP_SRCDIR/quickstart demo --keep" >&2
			exit 1
		}
		export BASH_ENV="$PB_TOP_BUILDDIR/demo/rc"
		exec nsenter --mount=/proc/\$pid/ns/mnt --net=/proc/\$pid/ns/net \\
			--pid=/proc/\$pid/ns/pid_for_children bash --rcfile "$PB_TOP_BUILDDIR/demo/rc" "\$@"
	END
	cat >"$PB_TOP_BUILDDIR/demo/rc" <<-END
		PB_TMP=$PB_TMP PB_CGROUP=$PB_CGROUP PB_TOP_BUILDDIR=$PB_TOP_BUILDDIR
		. "$PB_TOP_SRCDIR/tests/netns/lib.sh"
		. "\$PB_TMP/topology"
		export PATH="$PB_TOP_BUILDDIR:\$PATH" PATCHBAY_SOCKET="\$(agent_socket node-a)"
		PS1='demo# '
		cd "\$PB_TMP"
	END
	chmod +x "$PB_TOP_BUILDDIR/demo/shell"
}

how_to_look_around() {
	cat <<-END

		${bold}The demo stays up.${plain} Look around in a shell inside it:

		  sudo $PB_TOP_BUILDDIR/demo/shell
		    patchbay status                            the agent of node-a
		    patchbay chain show
		    patchbay service list
		    patchbay service show shop/hello           its backends
		    patchbay status --verbose                  and what kpr and dsr say of themselves
		    patchbay ct list                           tracked flows, also: patchbay nat list
		    patchbay identity list
		    patchbay help                              all commands
		    patchbay_on node-b plugin list             the agent of node-b
		    in_net node-a curl http://127.0.0.1:9876/metrics
		    run_in client curl http://$vip/      a request from pod client
		    in_net outside curl http://192.168.50.1:$node_port/   from outside: who answers, and whom it saw
		    vi manifests/web.yaml                      both agents follow the file
		    patchbay plugin reload kpr

		End it:  sudo kill \$(cat $PB_TOP_BUILDDIR/demo/end)
	END
}

# The sandbox runs on its own; this process shows its output until it is up.
keep() {
	local dir=$PB_TOP_BUILDDIR/demo runner shower rc=0

	if [ -f "$dir/pid" ] && kill -0 "$(cat "$dir/end")" 2>/dev/null; then
		tell "a demo is up already; end it:  sudo kill $(cat "$dir/end")"
		exit 1
	fi
	rm -rf "$dir"
	mkdir -p "$dir"
	PB_DEMO_KEEP=1 PB_SANDBOX_PIDFILE=$dir/pid setsid "$BASH" "$0" >"$dir/output" 2>&1 </dev/null &
	runner=$!
	echo $runner >"$dir/end"
	tail -n +1 -f "$dir/output" &
	shower=$!
	wait_until "[ -e '$dir/ready' ] || ! kill -0 $runner" 600
	# Gives tail the moment it needs to show the last lines.
	wait_until false 1
	end_pid $shower
	[ -e "$dir/ready" ] || { wait $runner || rc=$?; exit $rc; }
	how_to_look_around
	exit 0
}

missing=$(agent_missing)
[ -z "$missing" ] || { tell "$missing: run ./quickstart" >&2; exit 1; }
for tool in httpd echo load whoami ask; do
	[ -x "$PB_TOOLS/$tool" ] || { tell "the demo's servers are not built: run ./quickstart" >&2; exit 1; }
done
case ${1:-} in
--keep) keep ;;
'') ;;
*)
	echo "usage: demo.sh [--keep]" >&2
	exit 2
	;;
esac
sandbox "$0" "$@"
[ -z "${PB_DEMO_KEEP:-}" ] || write_shell
demo
if [ -n "${PB_DEMO_KEEP:-}" ]; then
	stay
fi
stop_all
title "Done."
