#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Many changes at a real API server: 10,000 Services with 10 endpoints each while the agent runs,
# then 60,000 changes to one Service at 1,000 a second. What is asserted is that everything is
# right; how long it took is told.

# shellcheck disable=SC2034,SC2119,SC2154,SC2317 # lib.sh uses and sets; conditions are called
PB_CLUSTER_DISCOVERY=${PB_CLUSTER_DISCOVERY:-v1beta1}
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
cluster_sandbox "$0" "$@"
missing=$(cluster_missing)
[ -z "$missing" ] || skip_all "${missing%%$'\n'*}"

# At somebody else's cluster, a tenth.
services=${PB_CLUSTER_SERVICES:-$(cluster_own && echo 10000 || echo 1000)}
changes=${PB_CLUSTER_CHANGES:-$(cluster_own && echo 60000 || echo 6000)}
rate=$((changes / 60))

# tell_until_done DONE_COUNT TOTAL: a line every ten seconds as long as the load runs.
tell_until_done() {
	local next=$((SECONDS + 10))

	while kill -0 "$load_pid" 2>/dev/null; do
		if [ $SECONDS -ge $next ]; then
			note "$(eval "$1") of $2"
			next=$((SECONDS + 10))
		fi
		wait_until "! kill -0 $load_pid" 1
	done
}

begin start
then_ok "the API server answers (EndpointSlice $cluster_discovery)" cluster_start
[ $tap_failed -eq 0 ] || { cluster_end; done_testing; }
agent_from_api
then_ok "the agent becomes ready" agent_start node-a
reader_start
service_put stable
slice_put stable stable-a 10.1.0.1 10.1.0.2
then_within "a first Service is programmed" 10 "backends_are stable 10.1.0.1 10.1.0.2"

begin services_created_while_the_agent_runs
at_start=$SECONDS
load_start --connections 6 --max-seconds 300 services "$services" 10
tell_until_done "grep -cE ' slice svc-[0-9]+/[^ ]+ done' '$journal'" "$services"
load_end
then_is "$services Services with 10 endpoints each were created ($(load_result .seconds) s)" \
	"$(load_result .changes)" "$services"
all_there() {
	[ "$(mapcheck show | awk '/^tcp\/.*:80 / && NF == 11' | wc -l)" -ge "$services" ]
}
then_within "all of them are in the maps" 60 all_there
note "the last one $((SECONDS - at_start)) s after the first was sent"
then_within "the maps have exactly the server's backends" 20 backends_match_all
then_ok "the agent is in step" in_step 20
note "the agent has $(($(patchbay_on node-a status -o json | jq .rss_bytes) / 1048576)) MiB"

begin a_thousand_changes_a_second_to_one_service
service_put churn
load_start --rate "$rate" --connections 8 --max-seconds 300 churn churn "$changes"
tell_until_done churn_changes "$changes"
load_end
then_is "$changes changes were made, $rate a second wanted, $(load_result .rate) reached" \
	"$(load_result .changes)" "$changes"
then_within "the maps have the last one" 20 "backends_match churn"
then_is "the other Services are unharmed" "$(backends_of stable)" "10.1.0.1 10.1.0.2"
then_ok "the agent is in step" in_step 20

begin end
then_never_wrong
then_ok "every kind is healthy" kinds_healthy
then_is "no packet or call met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0
agent_stop node-a
cluster_end
done_testing
