#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A real API server that is cut off, forgets, is killed, goes back in time; an agent that is killed.
# The independent reader watches the maps all the while: at no time is a backend wrong.

# shellcheck disable=SC2034,SC2119,SC2154,SC2317 # lib.sh uses and sets; conditions are called
PB_CLUSTER_DISCOVERY=${PB_CLUSTER_DISCOVERY:-v1beta1}
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
cluster_sandbox "$0" "$@"
missing=$(cluster_missing)
[ -z "$missing" ] || skip_all "${missing%%$'\n'*}"

stable="10.1.0.1 10.1.0.2 10.1.0.3"

begin start
then_ok "the API server answers (EndpointSlice $cluster_discovery)" cluster_start
[ $tap_failed -eq 0 ] || { cluster_end; done_testing; }
agent_from_api
then_ok "the agent becomes ready" agent_start node-a
reader_start
for service in stable scaled removed; do
	service_put $service
	# shellcheck disable=SC2086 # words
	slice_put $service $service-a $stable
done
slice_put scaled scaled-b 10.1.0.9
then_within "three Services are programmed" 10 "backends_are scaled $stable 10.1.0.9"

# What changes while the agent hears nothing: one of each kind of change.
changes_unheard() {
	slice_put scaled scaled-a 10.1.0.1 "10.1.1.$1"
	slice_delete scaled scaled-b
	slice_put scaled scaled-c "10.1.2.$1"
	service_delete removed
	slice_delete removed removed-a
	service_put "added-$1"
	slice_put "added-$1" "added-$1" "10.1.3.$1"
}
changes_undo() {
	slice_delete scaled scaled-c
	slice_put scaled scaled-b 10.1.0.9
	# shellcheck disable=SC2086 # words
	slice_put scaled scaled-a $stable
	service_put removed
	# shellcheck disable=SC2086 # words
	slice_put removed removed-a $stable
	wait_until "backends_are scaled $stable 10.1.0.9 && backends_are removed $stable" 20
}
# changes_heard N SECONDS
changes_heard() {
	then_within "what changed meanwhile is in the maps" "$2" "backends_are scaled 10.1.0.1 10.1.1.$1 10.1.2.$1"
	then_within "also what was created" 10 "backends_are added-$1 10.1.3.$1"
	then_within "and what was deleted" 10 "backends_are removed none"
	then_is "what did not change is as it was" "$(backends_of stable)" "$stable"
	then_ok "the agent is in step" in_step 20
	journal joined
	then_within "every kind is healthy" 30 kinds_healthy
}
old_state() {
	then_is "the last known state is in force meanwhile" "$(backends_of scaled)" "$stable 10.1.0.9"
}

begin half_open_connection
when "packets to the server vanish without a sign"
wire_break
changes_unheard 1
then_within "the agent notices by its heart beat" 75 "! kinds_healthy"
old_state
wire_back
changes_heard 1 40
changes_undo

begin etcd_compaction_while_disconnected
if cluster_own; then
	relists=$(kind relists)
	when "the link is down, and the server's history is compacted and its memory of it lost"
	wire_down
	changes_unheard 2
	revision=$(etcdctl endpoint status -w json | jq '.[0].Status.header.revision')
	then_ok "etcd forgets everything before revision $revision" etcdctl compact --physical "$revision"
	control_end apiserver KILL
	then_ok "the server is restarted" apiserver_start
	old_state
	log_mark
	wire_back
	changes_heard 2 60
	then_ok "by a new list (the server answered 410)" test "$(kind relists)" -gt "$relists"
	changes_undo
else
	skip "deletions are found by a new list" "etcd of this cluster can't be compacted from here"
fi

begin api_server_killed_for_30_seconds
if cluster_own; then
	when "it is killed"
	journal cut
	down_since=$SECONDS
	control_end apiserver KILL
	then_within "the agent says that it has no server" 20 "! kinds_healthy"
	old_state
	then_ok "nobody misses it for 30 seconds" wait_until "[ \$((SECONDS - down_since)) -ge 30 ]" 40
	old_state
	when "it is back, and everything changes at once"
	then_ok "it answers" apiserver_start
	changes_unheard 3
	changes_heard 3 60
	changes_undo
else
	skip "changes after it is back are heard" "this API server can't be killed from here"
fi

begin agent_killed_in_the_middle_of_churn
service_put churn
load_start --rate 200 --connections 4 --max-seconds 60 churn churn 3000
then_within "the churn has begun" 20 "[ \$(churn_changes) -ge 300 ]"
for i in 1 2 3; do
	when "the agent is killed and starts again ($i)"
	journal cut
	agent_stop node-a KILL
	then_ok "it becomes ready while changes go on" agent_start node-a
	then_ok "and gets in step" in_step 30
	journal joined
	now=$(churn_changes)
	then_within "more changes follow" 20 "[ \$(churn_changes) -ge $((now + 100)) ]"
done
load_end
then_is "all changes were made" "$(load_result .changes)" 3000
then_within "the maps have the last one" 20 "backends_match churn"

begin changes_while_no_agent_runs
journal cut
agent_stop node-a KILL
changes_unheard 4
old_state
then_ok "the agent starts again" agent_start node-a
changes_heard 4 30
changes_undo

begin etcd_restored_from_a_backup
if cluster_own; then
	given "a backup, and changes after it"
	then_ok "the backup is made" etcdctl snapshot save "$control/backup"
	slice_put scaled scaled-a 10.1.9.1 10.1.9.2
	service_put lost
	slice_put lost lost-a 10.1.9.9
	# Enough that the versions of the backup lie well behind.
	for i in $(seq 20); do slice_put lost lost-a "10.1.9.$((10 + i))"; done
	then_within "they are in force" 10 "backends_are scaled 10.1.9.1 10.1.9.2 10.1.0.9"
	when "the server is stopped and etcd is restored"
	journal cut
	control_end apiserver KILL
	control_end etcd KILL
	mv "$control/etcd" "$control/etcd.old"
	then_ok "etcd takes the backup" etcdctl snapshot restore "$control/backup" --name own \
		--data-dir "$control/etcd" --initial-cluster own=http://127.0.0.1:2380 \
		--initial-advertise-peer-urls http://127.0.0.1:2380
	journal slice scaled/scaled-a sent "$(with_port 10.1.0.1 10.1.0.2 10.1.0.3)"
	journal service lost sent
	journal slice lost/lost-a sent
	then_ok "etcd runs on it" etcd_start
	then_ok "the server too" apiserver_start
	journal slice scaled/scaled-a "done" "$(with_port 10.1.0.1 10.1.0.2 10.1.0.3)"
	journal service lost "done"
	journal slice lost/lost-a "done"
	# A server takes a watch from a version that it will only have later, and says nothing until
	# then. No client can tell; Kubernetes says to restart them.
	when "the agent is restarted, as every client has to be"
	agent_stop node-a
	then_ok "it becomes ready" agent_start node-a
	then_within "it goes back to the backup's state" 30 "backends_are scaled $stable 10.1.0.9"
	then_within "also what was created since is gone" 30 "backends_are lost none"
	then_ok "the agent is in step" in_step 60
	journal joined
else
	skip "the agent goes back with it" "etcd of this cluster can't be restored from here"
fi

begin end
then_never_wrong "no backend was wrong at any time of all this"
then_is "no packet or call met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0
agent_stop node-a
cluster_end
done_testing
