#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The suite against "any cluster": KUBECONFIG names an API server that the test knows nothing else
# about. Here that is one of our own, in a sandbox around the one that the suite makes.

# shellcheck disable=SC2034,SC2119,SC2154,SC2317 # lib.sh uses and sets; conditions are called
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
unset KUBECONFIG
cluster_sandbox "$0" "$@"
missing=$(cluster_missing)
[ -z "$missing" ] || skip_all "${missing%%$'\n'*}"
config=$control/admin.kubeconfig

# there VARIABLE=VALUE... COMMAND...: where that cluster can be reached, with its KUBECONFIG.
there() {
	in_net control env -u PB_SANDBOX -u PB_TMP -u PB_CGROUP -u PB_CLUSTER_YES KUBECONFIG="$config" \
		PATH="$PB_CLUSTER_BIN:$PATH" "$@"
}
named_like_ours() {
	cluster_kubectl=$(control_bin kubectl)
	cluster_admin=$config
	kubectl get namespaces,clusterroles,clusterrolebindings -o name | grep patchbay-check
}

begin start
node_add control
then_ok "a cluster with Services of its own" control_start
then_ok "its controllers run" controllers_start namespace,endpoint,endpointslice,garbagecollector

begin asks_first
then_fails "without a terminal or a yes it ends" "PB_CLUSTER_YES=1" \
	there setsid "$cluster_here/prepare" </dev/null
then_like "it says what it would create" "$(cat "$PB_TMP/out")" 'Namespace patchbay-check-N'
then_like "and where" "$(cat "$PB_TMP/out")" "https://$(control_ip):6443"
then_ok "a test that is started without is skipped" \
	grep -q '^1..0 # SKIP KUBECONFIG' <(there bash "$cluster_here/objects_test.sh")
then_is "nothing was created" "$(named_like_ours)" ""

begin suite
there PB_CLUSTER_YES=1 TMPDIR="$PB_TMP" bash "$cluster_here/objects_test.sh" >"$PB_TMP/suite" 2>&1
then_is "no case of objects_test.sh fails there" "$(grep '^not ok' "$PB_TMP/suite")" ""
then_ok "and it comes to its end" grep -q '^1\.\.[1-9]' "$PB_TMP/suite"
then_within "nothing of it is left at the cluster" 60 "! named_like_ours"
[ $tap_failed -eq 0 ] || show_file "$PB_TMP/suite" 60

done_testing
