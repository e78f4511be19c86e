#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A plugin crashes or hangs in each step of its life, in a real agent: the agent executes itself
# anew, adopts its datapath, runs the last good copy and says what happened. No packet is lost.
. "${PB_TOP_SRCDIR:-$(cd "$(dirname "$0")/../.." && pwd)}/tests/netns/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
! grep -q __asan_init "$PB_PATCHBAYD" ||
	skip_all "sanitizers end the process before the fault that is tested here"

PB_PLUGINS=$PB_TMP/samples
variants=$PB_TOP_BUILDDIR/tests/plugins/.libs
mkdir -p "$PB_PLUGINS"

# put VARIANT: what an admin does who installs another version of the plugin.
put() { install -m 0644 "$variants/sample_$1.so" "$PB_PLUGINS/sample.so"; }

# start_with VARIANT: an agent that loads this variant and has never seen a crash.
start_with() {
	[ -z "${agent_pid[node-a]:-}" ] || agent_stop node-a
	rm -rf "$(agent_dir node-a)"
	put "$1"
	agent_config node-a "{sample: {}}"
	sed -i "s/run_dir:/callback_deadline_ms: 400, max_crashes: 3, run_dir:/" \
		"$(agent_dir node-a)/patchbay.yaml"
	agent_start node-a
}

# member NAME: the first member of this name in the JSON on stdin, without quotes.
member() { sed -n "s/^[[:space:]]*\"$1\":[[:space:]]*\"\{0,1\}\(.*[^,\"]\)\"\{0,1\},\{0,1\}$/\1/p" | head -n 1; }
field() { patchbay_on node-a plugin list -o json | member "$1"; }
info() { patchbay_on node-a sample info -o json | member "$1"; }

# The restart by execve() keeps the process, so only its start of life in the log counts up.
starts() { grep -c 'msg="patchbayd ' "$(agent_log node-a)"; }

# reload_under_load: reloads while node-b sends numbered datagrams, from before until after.
reload_under_load() {
	local before load restarted=1

	before=$(starts)
	spawn_in node-b "$PB_TOOLS/load" --seconds 60 --rate 500 udp 192.168.50.1 7000 \
		>"$PB_TMP/load" 2>&1
	load=$spawned
	wait_until "[ \"\$(info packets)\" -gt 3 ]" 5
	patchbay_on node-a plugin reload sample >"$PB_TMP/reload" 2>&1
	wait_until "[ \"\$(starts)\" -gt $before ] && patchbay_on node-a sample info" 10 &&
		wait_until counts_on 5 && restarted=0
	kill -TERM "$load"
	wait "$load"
	cat "$PB_TMP/load"
	# The signal that ends the load may interrupt the last request. That datagrams flowed before
	# and after is what the two waits have shown, however fast the restart was.
	[ "$restarted" = 0 ] && grep -Eq '"errors":\{("EINTR":1)?\},.*"lost":0,' "$PB_TMP/load"
}

# The datagrams that flow now are counted by the programs of the plugin that serves now.
counts_on() {
	local n

	n=$(info packets)
	wait_until "[ \"\$(info packets)\" -gt $n ]" 1
}

node_add node-a
node_add node-b
if [ ! -x "$PB_TOOLS/load" ] || [ ! -x "$PB_TOOLS/echo" ]; then
	skip_all "tests/tools is not built"
fi
spawn_in node-a "$PB_TOOLS/echo" 7000
echo_pid=$spawned

for kind in crash hang; do
	for step in prepare restore start; do
		begin "a_new_plugin_with_a_${kind}_in_$step"
		given "a good plugin under traffic"
		start_with good || { not_ok "the agent starts"; continue; }
		pid=${agent_pid[node-a]}
		when "a file with a $kind in $step() is installed, and reloaded"
		put "${kind}_$step"
		then_ok "the agent restarts and not one packet is lost" reload_under_load
		then_ok "it is the same process" kill -0 "$pid"
		then_is "the last good copy runs" "$(info version)" 1.0.0
		then_is "the crash is counted" "$(field crashes)" 1
		reason="crashed with signal 11 (Segmentation fault)"
		[ $kind = crash ] || reason="ran longer than 400 ms"
		then_is "the error names file, step and remedy" "$(field error)" \
			"$PB_PLUGINS/sample.so brought the agent down 1 time ($step() $reason): the last good copy runs instead"
		then_ok "the log names the culprit" grep -qF \
			"sample brought the previous agent process down: $step() $reason; crash 1 of 3, the datapath went on running" \
			"$(agent_log node-a)"
		when "a good file is installed and reloaded"
		put second
		then_ok "the reload succeeds" patchbay_on node-a plugin reload sample
		then_is "the new version runs" "$(info version)" 2.0.0
	done
done

for kind in crash hang; do
	for step in quiesce save; do
		begin "an_old_plugin_with_a_${kind}_in_$step"
		given "a plugin with a $kind in $step(), under traffic"
		start_with "${kind}_$step" || { not_ok "the agent starts"; continue; }
		when "a good file is installed and reloaded"
		put good
		then_ok "the agent restarts and not one packet is lost" reload_under_load
		then_is "the good file runs" "$(info version)" 1.0.0
		then_is "the crash is counted" "$(field crashes)" 1
	done
done

begin "a_plugin_that_crashes_again_and_again"
given "a plugin that crashes in start() and has no better copy"
when "the agent starts"
start_with crash_start
then_within "it is left out" 10 "[ \"\$(field state)\" = 'left out' ]"
then_is "after three crashes" "$(field crashes)" 3
then_is "and the reason is given" "$(field error)" \
	"plugin sample: $PB_PLUGINS/sample.so: left out: it brought the agent down 3 times (start() crashed with signal 11 (Segmentation fault)); install another version, or try this one again with \`patchbay plugin load sample\`"
when "a good file is installed and loaded"
put good
then_ok "another version loads" patchbay_on node-a plugin load sample
then_is "and serves" "$(info version)" 1.0.0

agent_stop node-a
end_pid $echo_pid
done_testing
