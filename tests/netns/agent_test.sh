#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The life of the agent as its administrator sees it: start, status, SIGHUP, stop, restart, crash,
# two agents on one machine, cleanup, and what the tool says when something is wrong.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"

field() { jq -r "$2" <<<"$1"; }
status() { patchbay_on "$1" status -o json; }
# shellcheck disable=SC2317 # called by wait_until
is_ready() { [ "$(field "$(status "$1")" .state)" = ready ]; }
exit_code() { "$@" >"$PB_TMP/out" 2>&1; echo $?; }
config_of() { echo "$(agent_dir "$1")/patchbay.yaml"; }
hup() { kill -HUP "${agent_pid[$1]}"; }
# Sanitizers need memory of their own and catch crashes themselves.
sanitized() { nm -D "$PB_PATCHBAYD" | grep -q __asan_init; }
log_lines() { grep -c -- "$2" "$(agent_log "$1")"; }

# Starts an agent and waits until its chains carry packets.
start() {
	agent_start "$1" && wait_until "is_ready $1" 20
}

# Numbered requests from the pod on node-a to the one on node-b, until traffic_stop.
traffic_start() {
	spawn_in client "$PB_TOOLS/load" --seconds 60 --workers 2 --timeout-ms 3000 --rate 500 rr \
		"$(pod_ip4 web)" 7000 >"$PB_TMP/traffic" 2>&1
	traffic_pid=$spawned
}

# Sets unanswered: how many requests got no answer. In this shell, never in a $( ): only the parent
# can wait for the load to have written its result.
traffic_stop() {
	end_pid "$traffic_pid"
	unanswered=$(jq -r 'if .answered > 0 then .failed + .lost + .wrong else "no answer at all" end' \
		"$PB_TMP/traffic")
}

node_add node-a
node_add node-b
pod_add node-a client
pod_add node-b web
have_tools=
if [ -x "$PB_TOOLS/load" ] && [ -x "$PB_TOOLS/echo" ]; then
	have_tools=1
	spawn_in web "$PB_TOOLS/echo" 7000
	wait_until "run_in client '$PB_TOOLS/load' --count 1 --seconds 1 crr $(pod_ip4 web) 7000" 5
fi
agent_config node-a "{}"
agent_config node-b "{}"

begin check_config
then_ok "a good file passes" "$PB_PATCHBAYD" --check-config -c "$(config_of node-a)"
then_is "and is called OK" "$(cat "$PB_TMP/out")" "$(config_of node-a): OK"
printf 'node: {name: a}\ndatapath:\n  device: [eth0]\n' >"$PB_TMP/bad.yaml"
then_fails "a bad file is refused with line, key and remedy" \
	"patchbayd: $PB_TMP/bad.yaml:3: datapath.device: unknown key; did you mean \"devices\"?" \
	"$PB_PATCHBAYD" --check-config -c "$PB_TMP/bad.yaml"
then_is "wrong usage exits with 2" "$(exit_code "$PB_PATCHBAYD" --no-such-option)" 2

begin tool_without_agent
then_is "the exit code is 3" "$(exit_code patchbay_on node-a status)" 3
then_like "the message says how to start it" "$(cat "$PB_TMP/out")" \
	'no agent answers .*; start it with "systemctl start patchbayd"'
then_ok "help works" patchbay_on node-a help
then_ok "version works" patchbay_on node-a version
then_is "wrong usage exits with 2" "$(exit_code patchbay_on node-a map dump)" 2

begin start_and_status
when "the agent of node-a starts"
then_ok "it becomes ready" start node-a
s=$(status node-a)
then_is "status names the node" "$(field "$s" .node)" node-a
then_is "no packet met a hole" "$(field "$s" .datapath.missed)" 0
then_ok "its links are pinned" test -e "$(agent_bpffs node-a)/links/cg_connect4"
rss=$(field "$s" .rss_bytes)
if sanitized; then
	skip "it takes less than 15 MiB" "the build has sanitizers"
else
	then_ok "it takes less than 15 MiB ($((rss / 1024)) KiB)" test "$rss" -lt $((15 << 20))
fi
for command in "plugin list" "chain show" "map list" "endpoint list" "identity list" "ip list" "ct list" "nat list" help version; do
	# shellcheck disable=SC2086 # words
	then_ok "$command answers" patchbay_on node-a $command
	# shellcheck disable=SC2086
	then_ok "$command -o json is JSON" jq -e . <<<"$(patchbay_on node-a $command -o json)"
done
then_ok "map dump answers" patchbay_on node-a map dump core/pb_switches
then_is "what the agent refuses exits with 1" \
	"$(exit_code patchbay_on node-a map dump core/nothing)" 1
then_fails "an unknown command brings a suggestion" \
	'patchbay: unknown command "chian show"; did you mean "chain show"?' \
	patchbay_on node-a chian show
then_fails "also for one that needs no agent" \
	'patchbay: unknown command "plugin inspct"; did you mean "plugin inspect"?' \
	patchbay_on node-a plugin inspct x.so
then_fails "half a command brings the list, with those that need no agent" \
	'plugin reload, plugin unload, plugin inspect, plugin new' patchbay_on node-a plugin
then_fails "a command of a plugin that isn't loaded is explained" \
	'unknown command "service list"; "patchbay help" lists all commands, a plugin'"'"'s only' \
	patchbay_on node-a service list

begin strangers_are_refused
chmod 0711 "$PB_TMP" "$PB_TMP/agents" "$(agent_dir node-a)"
install -m 0755 "$PB_PATCHBAY" "$PB_TMP/patchbay-tool" 2>/dev/null
then_fails "another user can't connect" "Permission denied; ask as root" \
	setpriv --reuid 65534 --regid 65534 --clear-groups \
	"$PB_TMP/patchbay-tool" --socket "$(agent_socket node-a)" status
chmod 0666 "$(agent_socket node-a)"
then_fails "even when the file's mode was opened" "user 65534 may not use this socket" \
	setpriv --reuid 65534 --regid 65534 --clear-groups \
	"$PB_TMP/patchbay-tool" --socket "$(agent_socket node-a)" status
chmod 0660 "$(agent_socket node-a)"

begin http
# page NODE PATH [CURL_OPTION...]: prints status and body, in one line a line.
page() {
	local node=$1 path=$2

	shift 2
	in_net "$node" curl -s -m 5 -w '%{http_code}\n' "$@" "http://127.0.0.1:${port:-9876}$path"
}
then_is "it is ready" "$(page node-a /readyz)" "$(printf 'ok\n200')"
then_is "it is well" "$(page node-a /healthz)" "$(printf 'ok\n200')"
then_is "a liveness probe is answered" "$(page node-a /healthz -H 'brief: true')" "$(printf 'ok\n200')"
then_is "POST is refused" "$(page node-a /healthz -X POST -d x | tail -n 1)" 405
then_is "so is another path" "$(page node-a / | tail -n 1)" 404
page node-a /metrics >"$PB_TMP/metrics"
then_is "metrics come" "$(tail -n 1 "$PB_TMP/metrics")" 200
then_is "as the text format, version 0.0.4" \
	"$(in_net node-a curl -sI -m 5 http://127.0.0.1:9876/metrics | tr -d '\r' | sed -n 's/^Content-Type: //p')" \
	"text/plain; version=0.0.4; charset=utf-8"
then_is "the guide names each of them" "$(
	sed -n 's/^# TYPE \([a-z0-9_]*\) .*/\1/p' "$PB_TMP/metrics" | while read -r name; do
		grep -qF "| \`$name\` |" "$PB_TOP_SRCDIR/docs/admin.md" || echo "$name"
	done
)" ""
then_like "packets are counted" "$(cat "$PB_TMP/metrics")" \
	'^patchbay_datapath_packets_total\{hook="dev-ingress"\} [0-9]'
when "http.listen names a port that is taken"
cp "$(config_of node-a)" "$PB_TMP/good.yaml"
if [ -n "$have_tools" ]; then
	nsenter --net=/run/netns/node-a -- "$PB_TOOLS/echo" 7001 &
	taken_pid=$!
	wait_until "in_net node-a '$PB_TOOLS/load' --count 1 --seconds 1 crr 127.0.0.1 7001" 10
	echo 'http: {listen: 127.0.0.1:7001}' >>"$(config_of node-a)"
	hup node-a
	then_within "the log says so" 10 \
		"grep -q 'http.listen 127.0.0.1:7001: Address already in use' '$(agent_log node-a)'"
	then_is "status says so" "$(field "$(status node-a)" .http.error)" "Address already in use"
	then_is "the old address is served on" "$(page node-a /readyz | tail -n 1)" 200
	end_pid $taken_pid TERM
else
	skip "a taken port is reported" "tests/tools are not built"
fi
when "it names another port"
cp "$PB_TMP/good.yaml" "$(config_of node-a)"
echo 'http: {listen: "127.0.0.1:7002"}' >>"$(config_of node-a)"
hup node-a
then_within "that one is served" 10 "[ \"\$(port=7002 page node-a /readyz | tail -n 1)\" = 200 ]"
then_is "the old one is closed" "$(page node-a /readyz)" 000
cp "$PB_TMP/good.yaml" "$(config_of node-a)"
hup node-a
then_within "and back" 10 "[ \"\$(page node-a /readyz | tail -n 1)\" = 200 ]"

begin sighup
when "the file becomes invalid"
cp "$(config_of node-a)" "$PB_TMP/good.yaml"
echo 'nonsense: 1' >>"$(config_of node-a)"
hup node-a
then_within "the log says line, key and that nothing changed" 10 \
	"grep -q 'nonsense: unknown key.*the running configuration stays in force' '$(agent_log node-a)'"
then_like "status says so too" "$(field "$(status node-a)" .config_error)" 'nonsense: unknown key'
when "a key changes that can't change while it runs"
sed 's/name: node-a/name: node-z/' "$PB_TMP/good.yaml" >"$(config_of node-a)"
hup node-a
then_within "the log says to restart" 10 \
	"grep -q 'node.name can.t change while the agent runs; restart patchbayd' '$(agent_log node-a)'"
when "it names a plugin that isn't there"
sed 's/^plugins: .*/plugins: {nope: {}}/' "$PB_TMP/good.yaml" >"$(config_of node-a)"
hup node-a
then_within "status says what of the file is not in force" 10 \
	"field \"\$(status node-a)\" .config_error | grep -q '^plugin nope: .*/nope.so: no such file'"
then_like "the metric says so too" "$(page node-a /metrics)" 'patchbay_config_refused 1'
then_like "the agent isn't ready" "$(page node-a /readyz)" 'plugins: nope: failed'
when "it no longer does"
cp "$PB_TMP/good.yaml" "$(config_of node-a)"
hup node-a
then_within "it is ready, as nobody waits for that plugin" 10 \
	"[ \"\$(page node-a /readyz | tail -n 1)\" = 200 ]"
when "a plugin that isn't there is loaded by hand"
then_fails "the tool says why" "no such file" patchbay_on node-a plugin load nope
then_is "nobody waits for it either" "$(page node-a /readyz | tail -n 1)" 200
when "a device is added"
ip -n node-a link add extra type veth peer name extra2
ip -n node-a link set extra up
sed 's/devices: \[eth0\]/devices: [eth0, extra]/' "$PB_TMP/good.yaml" >"$(config_of node-a)"
hup node-a
index=$(ip -n node-a -o link show dev extra | cut -d: -f1)
attached="test -e $(agent_bpffs node-a)/links/dev-ingress_$index || in_net node-a tc qdisc show dev extra | grep -q clsact"
then_within "it is attached" 10 "$attached"
then_within "the error is gone from status" 10 \
	"[ \"\$(field \"\$(status node-a)\" .config_error)\" = null ]"
when "the device is taken out again"
cp "$PB_TMP/good.yaml" "$(config_of node-a)"
hup node-a
then_within "it is detached" 10 "! { $attached; }"
when "a SIGHUP comes after two quiet seconds"
agent_stop node-a
start node-a
quiet=$(($(date +%s) + 3))
wait_until "[ \$(date +%s) -ge $quiet ]" 5
hup node-a
then_within "it is applied" 10 "grep -q 'SIGHUP: .* is in force' <(tail -n 3 '$(agent_log node-a)')"
max_ms=$(field "$(status node-a)" '.loop.max_ms | floor')
then_ok "the wait for it doesn't count as work of the loop ($max_ms ms)" test "$max_ms" -lt 1000
when "many SIGHUPs come at once"
for _ in 1 2 3 4 5 6 7 8 9 10; do hup node-a; done
then_within "the agent is ready again" 10 "is_ready node-a"

begin removed_under_the_agent
when "its pins and directories below bpffs and run_dir are removed"
find "$(agent_bpffs node-a)" "$(agent_dir node-a)/run/plugins" -mindepth 1 -delete
rmdir "$(agent_dir node-a)/run/plugins"
then_within "the log says what was detached and what helps" 20 \
	"grep -q 'connect4: another process detached .*SIGHUP or a restart attaches it again' '$(agent_log node-a)'"
hup node-a
then_within "SIGHUP attaches it again" 10 "[ -e '$(agent_bpffs node-a)/links/cg_connect4' ]"
then_within "the agent is ready" 10 "is_ready node-a"
if [ -n "$have_tools" ]; then
	when "it is killed"
	agent_stop node-a KILL
	then_ok "packets still pass: gates and chains have their pins again" \
		run_in client "$PB_TOOLS/load" --count 1 --seconds 2 crr "$(pod_ip4 web)" 7000
	start node-a
fi
if [ -f "$PB_TMP/plugins/kpr.so" ]; then
	then_ok "a plugin can be loaded" patchbay_on node-a plugin load kpr
	then_ok "and unloaded" patchbay_on node-a plugin unload kpr
else
	skip "a plugin can be loaded" "plugins/kpr/kpr.la is not built"
fi
then_is "no packet met a hole" "$(field "$(status node-a)" .datapath.missed)" 0

begin two_agents_on_one_machine
then_ok "a second agent with its own paths starts" start node-b
then_is "the first one still answers" "$(field "$(status node-a)" .node)" node-a
then_is "the second answers for itself" "$(field "$(status node-b)" .node)" node-b
marker=$(agent_dir node-a)/run/state/marker
given "a mark in a reserved word of the first one's crash page"
printf mark | dd of="$marker" bs=4 seek=7 conv=notrunc status=none
cp "$marker" "$PB_TMP/marker"
then_fails "a third one on the first's paths is refused" \
	"another agent uses $(agent_dir node-a)/run; stop it, or give this one its own agent.run_dir" \
	in_net node-a timeout 20 "$PB_PATCHBAYD" -c "$(config_of node-a)"
then_ok "it left the first one's crash marker alone" cmp "$marker" "$PB_TMP/marker"
sed "s|run_dir: [^,]*|run_dir: $PB_TMP/other|" "$(config_of node-a)" >"$PB_TMP/other.yaml"
then_fails "also when the run directory is another" \
	"another agent answers on this socket; stop it, or give this one its own control.socket" \
	in_net node-a timeout 20 "$PB_PATCHBAYD" -c "$PB_TMP/other.yaml"
sed -i "s|socket: .*/patchbay.sock|socket: $PB_TMP/other.sock|" "$PB_TMP/other.yaml"
then_fails "also when only the bpffs directory is the same" "$(agent_bpffs node-a)" \
	in_net node-a timeout 20 "$PB_PATCHBAYD" -c "$PB_TMP/other.yaml"
then_ok "the first one is unharmed" is_ready node-a
then_fails "cleanup is refused while it runs" \
	"an agent answers on $(agent_socket node-a); stop it first" \
	in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(config_of node-a)"
agent_stop node-b
then_ok "cleanup of the second" in_net node-b "$PB_PATCHBAYD" --cleanup -c "$(config_of node-b)"
then_is "leaves nothing of it" "$(agent_leftovers node-b)" ""
then_ok "and the first unharmed" is_ready node-a

begin identities
# identity_of NODE ADDRESS: what `ip list` says of an address.
identity_of() { patchbay_on "$1" ip list "$2" -o json | jq -r '.[0].identity // "none"'; }
given "two pods with different labels, on a node whose address is known"
cat >"$PB_TMP/who.yaml" <<EOF
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Node, metadata: {name: far}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: one, labels: {app: one}},
 spec: {nodeName: far}, status: {phase: Running, podIPs: [{ip: 198.51.100.1}, {ip: "2001:db8::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: two, labels: {app: two}},
 spec: {nodeName: far}, status: {phase: Running, podIPs: [{ip: 198.51.100.2}]}}
EOF
cp "$PB_TMP/who.yaml" "$(agent_dir node-a)/manifests/who.yaml"
then_within "the ipcache has them" 10 \
	"[ \"\$(identity_of node-a 198.51.100.1)\" -ge 256 ] && [ \"\$(identity_of node-a 198.51.100.2)\" -ge 256 ]"
one=$(identity_of node-a 198.51.100.1)
two=$(identity_of node-a 198.51.100.2)
then_ok "each has a number of its own" test "$one" != "$two"
then_is "one for both families" "$(identity_of node-a 2001:db8::1)" "$one"
then_is "the node is a remote node" "$(identity_of node-a 192.0.2.1)" 6
then_like "the number stands for the labels" "$(patchbay_on node-a identity list "$one")" \
	'k8s:app=one,k8s:io.cilium.k8s.namespace.labels.team=a,'
then_is "status has the counts" "$(field "$(status node-a)" '.identities.synced, .identities.nodes')" \
	"$(printf 'true\n1')"
then_fails "a filter that makes no sense is refused" \
	'"nowhere" is neither an address or prefix nor the number of an identity' \
	patchbay_on node-a ip list nowhere
when "SIGHUP says that other nodes are host"
cp "$(config_of node-a)" "$PB_TMP/before.yaml"
printf 'identity: {remote_node: false}\n' >>"$(config_of node-a)"
hup node-a
then_within "they are" 10 "[ \"\$(identity_of node-a 192.0.2.1)\" = 1 ]"
when "it is killed, and starts again without the first pod"
agent_stop node-a KILL
cp "$PB_TMP/before.yaml" "$(config_of node-a)"
sed -i '/name: one/,/^---/d' "$(agent_dir node-a)/manifests/who.yaml"
then_ok "it becomes ready" start node-a
then_within "the pod that is gone has no entry" 10 "[ \"\$(identity_of node-a 198.51.100.1)\" = none ]"
then_is "the other one has its number" "$(identity_of node-a 198.51.100.2)" "$two"
rm "$(agent_dir node-a)/manifests/who.yaml"

begin stop_restart_and_crash
if [ -n "$have_tools" ]; then
	given "traffic through the hooks of node-a"
	traffic_start
	packets='[.datapath.hooks[] | select(.hook == "dev-ingress") | .packets] | add'
	then_within "packets pass its chains" 10 "[ \$(field \"\$(status node-a)\" '$packets') -gt 100 ]"
fi
when "the agent gets SIGTERM while it is asked without a pause"
askers=()
for _ in 1 2 3 4; do
	while patchbay_on node-a --timeout 2 status; do :; done >/dev/null 2>&1 &
	askers+=($!)
done
kill -TERM "${agent_pid[node-a]}"
wait "${agent_pid[node-a]}"
then_is "it exits with 0" $? 0
wait "${askers[@]}"
then_like "it ends in order" "$(cat "$(agent_log node-a)")" 'SIGTERM: ending; the datapath goes on'
then_is "no handle was left" "$(log_lines node-a 'open handles')" 0
then_ok "its links stay" test -e "$(agent_bpffs node-a)/links/cg_connect4"
then_ok "its socket is gone" test ! -e "$(agent_socket node-a)"
when "it starts again"
then_ok "it becomes ready" start node-a
then_is "no packet met a hole" "$(field "$(status node-a)" .datapath.missed)" 0
when "it is killed and starts again"
agent_stop node-a KILL
then_ok "its links stay" test -e "$(agent_bpffs node-a)/links/cg_connect4"
then_ok "it replaces the dead socket and becomes ready" start node-a
then_is "no packet met a hole" "$(field "$(status node-a)" .datapath.missed)" 0
if [ -n "$have_tools" ]; then
	traffic_stop
	then_is "no request was lost over all of it" "$unanswered" 0
else
	skip "no request was lost over all of it" "tests/tools/load is not built"
fi

begin readiness
if command -v socat >/dev/null; then
	when "NOTIFY_SOCKET is set"
	agent_stop node-a
	socat -u "UNIX-RECVFROM:$PB_TMP/notify,fork" "OPEN:$PB_TMP/notified,creat,append" &
	socat_pid=$!
	wait_until "[ -S $PB_TMP/notify ]" 5
	export NOTIFY_SOCKET=$PB_TMP/notify
	start node-a
	unset NOTIFY_SOCKET
	then_within "READY=1 is sent" 10 "grep -q READY=1 $PB_TMP/notified"
	end_pid $socat_pid
else
	skip "READY=1 is sent" "socat is not installed"
fi

begin plugin_that_crashes_the_agent
crasher=$PB_TOP_BUILDDIR/tests/plugins/.libs/sample_crash_start.so
if sanitized; then
	skip "the tool says that the agent restarted" "the build has sanitizers"
elif [ -f "$crasher" ]; then
	install -d -m 0755 "$PB_TMP/samples"
	install -m 0644 "$crasher" "${crasher%crash_start.so}good.so" "$PB_TMP/samples/"
	given "a plugin in the configuration"
	sed "s|^plugins: .*|plugins: {sample: {path: $PB_TMP/samples/sample_good.so}}|" \
		"$PB_TMP/good.yaml" >"$(config_of node-a)"
	hup node-a
	then_within "it is loaded by SIGHUP" 10 "patchbay_on node-a plugin list | grep -q 'sample .* loaded'"
	when "it is reloaded with a file that crashes in start()"
	then_is "the tool fails" \
		"$(exit_code patchbay_on node-a plugin reload sample "$PB_TMP/samples/sample_crash_start.so")" 1
	then_like "it says that the agent restarted, and how the plugin is" "$(cat "$PB_TMP/out")" \
		'the agent restarted during the operation; plugin "sample" is loaded: '
	then_is "no packet met a hole" "$(field "$(status node-a)" .datapath.missed)" 0
	when "it is taken out of the configuration"
	cp "$PB_TMP/good.yaml" "$(config_of node-a)"
	hup node-a
	then_within "it is unloaded" 10 "! patchbay_on node-a plugin list | grep -q sample"
	when "a plugin that is required is missing at start"
	agent_stop node-a
	sed 's|^plugins: .*|plugins: {nowhere: {required: always}}|' "$PB_TMP/good.yaml" \
		>"$(config_of node-a)"
	then_fails "the agent ends and says which" \
		'a plugin that is \"required: always\" is missing' \
		in_net node-a timeout 20 "$PB_PATCHBAYD" -c "$(config_of node-a)"
	then_ok "the datapath stays" test -e "$(agent_bpffs node-a)/links/cg_connect4"
	cp "$PB_TMP/good.yaml" "$(config_of node-a)"
	start node-a
else
	skip "the tool says that the agent restarted" "tests/plugins/sample_crash_start.la is not built"
fi

begin valgrind
agent_stop node-a
if command -v valgrind >/dev/null && ! sanitized; then
	when "the agent runs under valgrind, is asked for its status and stopped"
	nsenter --net=/run/netns/node-a -- valgrind -q --leak-check=full \
		--errors-for-leak-kinds=definite,indirect --undef-value-errors=no \
		--error-exitcode=99 --log-file="$PB_TMP/valgrind" \
		--suppressions="$PB_TOP_SRCDIR/tests/netns/valgrind.supp" \
		"$PB_PATCHBAYD" -c "$(config_of node-a)" >>"$(agent_log node-a)" 2>&1 &
	agent_pid[node-a]=$!
	then_within "it becomes ready" 60 "is_ready node-a"
	patchbay_on node-a map list >/dev/null
	hup node-a
	then_within "it reads its configuration again" 20 "is_ready node-a"
	kill -TERM "${agent_pid[node-a]}"
	wait "${agent_pid[node-a]}"
	code=$?
	then_is "it ends without an error or a leak" $code 0
	[ $code -eq 0 ] || show_file <(grep -v 'unhandled eBPF' "$PB_TMP/valgrind") 60
else
	skip "it ends without an error or a leak" "valgrind is missing, or the build has sanitizers"
fi

begin cleanup
then_ok "it succeeds" in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(config_of node-a)"
then_is "nothing is left" "$(agent_leftovers node-a)" ""
then_ok "a second time is fine" in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(config_of node-a)"

done_testing
