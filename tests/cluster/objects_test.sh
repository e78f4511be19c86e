#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Objects come, change and go at a real API server; the agent's rights and tokens change; its
# source is switched. All the while the independent reader watches the maps.

# shellcheck disable=SC2034,SC2119,SC2154,SC2317 # lib.sh uses and sets; conditions are called
# shellcheck source=tests/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
cluster_sandbox "$0" "$@"
missing=$(cluster_missing)
[ -z "$missing" ] || skip_all "${missing%%$'\n'*}"

begin start
then_ok "the API server answers (EndpointSlice $cluster_discovery)" cluster_start
[ $tap_failed -eq 0 ] || { cluster_end; done_testing; }
agent_from_api
then_ok "the agent becomes ready with the rights of deploy/rbac.yaml" agent_start node-a
then_within "every kind that it watches is healthy" 20 kinds_healthy
http() { in_net node-a curl -sf -m 5 "http://127.0.0.1:9876$1"; }
metric() { http /metrics | awk -v name="$1" '$1 == name { print $2 }'; }
then_ok "/readyz says that it is ready" http /readyz
reader_start

begin create
service_put web
then_within "a Service without slices has a frontend and no backend" 10 "backends_are web"
slice_put web web-a 10.1.0.1 10.1.0.2
then_within "its backends follow" 10 "backends_are web 10.1.0.1 10.1.0.2"
slice_put web web-b 10.1.0.3 10.1.0.2
then_within "a second slice adds to them, an address in both counts once" 10 \
	"backends_are web 10.1.0.1 10.1.0.2 10.1.0.3"

begin scale
# shellcheck disable=SC2046 # words
slice_put web web-a $(seq -f 10.1.1.%g 1 100)
# shellcheck disable=SC2046 # words
then_within "up to 102" 10 "backends_are web $(seq -f 10.1.1.%g 1 100 | xargs) 10.1.0.2 10.1.0.3"
slice_put web web-a 10.1.1.50
then_within "down to 3" 10 "backends_are web 10.1.1.50 10.1.0.2 10.1.0.3"
slice_put web web-a
then_within "an empty slice takes nothing from the other" 10 "backends_are web 10.1.0.2 10.1.0.3"

begin relabel
service_put blue
service_put green
slice_put blue moving 10.2.0.1
slice_put green staying 10.2.0.9
then_within "a slice belongs to the Service that its label names" 10 "backends_are blue 10.2.0.1"
when "the label names another Service"
slice_move moving blue green 10.2.0.1
then_within "that one has its backends" 10 "backends_are green 10.2.0.1 10.2.0.9"
then_within "and the first one has not" 10 "backends_are blue"

begin relabel_of_services
when "the label service-proxy-name gives a Service to somebody else"
journal service green sent
api PATCH "$(services_path)/green" \
	'{"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}}' \
	application/merge-patch+json >/dev/null
journal service green "done"
then_within "its frontend goes" 10 "backends_are green none"
when "and back"
journal service green sent "$(frontend_of green)"
api PATCH "$(services_path)/green" \
	'{"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": null}}}' \
	application/merge-patch+json >/dev/null
journal service green "done" "$(frontend_of green)"
then_within "its frontend comes back with its backends" 10 "backends_are green 10.2.0.1 10.2.0.9"

begin delete
slice_delete web web-b
then_within "the last backend goes with its slice" 10 "backends_are web"
slice_put web web-c 10.1.0.7
then_within "a new slice is used" 10 "backends_are web 10.1.0.7"
service_delete web
then_within "the frontend goes with the Service" 10 "backends_are web none"
slice_delete web web-c

begin real_controllers
if cluster_own; then
	# shellcheck source=tests/cluster/controllers.sh
	. "$cluster_here/controllers.sh"
else
	skip "slices made by the EndpointSlice controller" "fake Nodes and Pods are not for others' clusters"
fi

begin token_revoked
given "a token that the server does not know any more"
service_put held
slice_put held held-a 10.3.0.1
then_ok "the agent is in step" in_step 10
kubectl -n "$cluster_ns" delete serviceaccount "$cluster_ns" >/dev/null
journal cut
# The server remembers a good token for ten seconds.
until_refused() {
	connections_reset
	[ "$(kind healthy)" = false ] && kube_status '' | grep -q 401
}
then_within "the status says 401" 40 until_refused
then_is "what was known stays" "$(backends_of held)" 10.3.0.1
when "the token file has a new token"
rbac_yaml | kubectl apply -f - >/dev/null
slice_put held held-a 10.3.0.2
token_for "$cluster_ns" "$PB_TMP/agent.token"
then_within "the change comes through without a restart" 40 "backends_are held 10.3.0.2"
then_ok "everything else too" in_step 40
journal joined
then_within "every kind is healthy" 40 kinds_healthy

begin rights_taken_away
when "the agent loses its role"
journal cut
kubectl delete clusterrolebinding "$cluster_ns" >/dev/null
forbidden() {
	connections_reset
	kube_status '' | grep -qE 'lacks verb \\?"(list|watch)\\?" on resource \\?"endpointslices'
}
then_within "the status names verb and resource" 40 forbidden
note "$(kind last_error | cut -c 1-120)"
metric_says_so() {
	connections_reset
	[ "$(metric 'patchbay_kube_healthy{kind="EndpointSlice"}')" = 0 ]
}
then_within "so does the metric" 40 metric_says_so
then_is "what was known stays" "$(backends_of held)" 10.3.0.2
when "the role comes back"
slice_put held held-a 10.3.0.3
rbac_yaml | kubectl apply -f - >/dev/null
then_within "the change comes through without a restart" 60 "backends_are held 10.3.0.3"
then_ok "everything else too" in_step 60
journal joined
then_within "every kind is healthy" 60 kinds_healthy

then_is "the metric counts what the status counts" \
	"$(metric 'patchbay_kube_objects{kind="EndpointSlice"}')" "$(kind objects)"

begin source_switched
given "a directory with the objects that the server has"
mkdir -p "$PB_TMP/manifests"
for path in "$(services_path)" "$(slices_path)"; do
	api GET "$path" | jq '. as $list | .items[] |= (. + {apiVersion: $list.apiVersion,
		kind: ($list.kind | rtrimstr("List"))} | del(.metadata.managedFields))' \
		>"$PB_TMP/manifests/$(basename "$path").json"
done
kubectl get --raw /api/v1/namespaces/default/services/kubernetes >"$PB_TMP/manifests/kubernetes.json"
source_is() { [ "$(kube_status .source)" = "$1" ] && kinds_healthy; }
when "SIGHUP switches to the directory"
cp "$(agent_file)" "$PB_TMP/api.yaml"
agent_source "{source: manifests, manifests: $PB_TMP/manifests}"
hup
then_within "the agent reads from it" 20 "source_is manifests"
then_is "the backends are the same" "$(backends_of held)" 10.3.0.3
reader_looks 3
when "the server has changed meanwhile and SIGHUP switches back"
journal cut
slice_put held held-a 10.3.0.4
cp "$PB_TMP/api.yaml" "$(agent_file)"
hup
then_within "the agent reads from the server" 20 "source_is api"
then_within "and has the change" 20 "backends_are held 10.3.0.4"
then_ok "and everything else" in_step 20
journal joined

begin login_plugin_refused
when "the kubeconfig asks for a program to log in with"
log_mark
agent_kubeconfig '{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true}}'
mv "$PB_TMP/agent.kubeconfig" "$PB_TMP/exec.kubeconfig"
agent_source "{source: api, kubeconfig: $PB_TMP/exec.kubeconfig}"
hup
then_within "it is refused by name, with what to do" 10 "log_says 'exec.*(tokenFile|certificate|token)'"
then_within "the source that ran goes on" 10 kinds_healthy
slice_put held held-a 10.3.0.5
then_within "and brings changes" 10 "backends_are held 10.3.0.5"
agent_from_api
hup

begin reader_can_fail
given "everything is right"
then_never_wrong "nothing was wrong in all of the above"
reader_start
reader_looks
when "a backend that nobody has named is written into the map"
before=$(mapcheck spoil "$(frontend_of held)" 10.66.66.66:8080)
then_within "the reader reports it" 10 \
	"grep -q 'wrong .* held .* 10.66.66.66:8080 was never a backend' '$reader_log'"
then_within "also that another is missing" 10 \
	"grep -q 'wrong .* held .* $before is missing' '$reader_log'"
mapcheck spoil "$(frontend_of held)" "$before" >/dev/null
when "a frontend is removed from the map"
mapcheck drop "$(frontend_of held)"
then_within "the reader reports it" 10 "grep -q 'wrong .* held .* - is missing' '$reader_log'"
when "the journal says that a backend went, and it did not"
service_put liar
slice_put liar liar-a 10.4.0.1 10.4.0.2
wait_until "backends_are liar 10.4.0.1 10.4.0.2" 10
journal slice liar/liar-a "done" 10.4.0.1:8080
then_within "the reader reports it" 20 "grep -q 'wrong .* liar .* 10.4.0.2:8080 was removed long ago' '$reader_log'"
end_pid "$reader_pid"
then_ok "and it counts" test "$(jq .wrong "$PB_TMP/reader.json")" -ge 3

begin end
then_is "no packet or call met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0
agent_stop node-a
cluster_end
done_testing
