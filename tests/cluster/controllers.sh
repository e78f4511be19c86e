# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Part of objects_test.sh: slices made by the real EndpointSlice controller, from Nodes and Pods
# that nobody runs. Their status is written as a kubelet would.

pods_path=/api/v1/namespaces/$cluster_ns/pods

# pod_put NAME IP: running and ready on the fake node.
pod_put() {
	api POST "$pods_path" "{\"apiVersion\": \"v1\", \"kind\": \"Pod\",
		\"metadata\": {\"name\": \"$1\", \"labels\": {\"app\": \"fake\"}},
		\"spec\": {\"nodeName\": \"fake\", \"terminationGracePeriodSeconds\": 300,
		\"containers\": [{\"name\": \"c\", \"image\": \"none\",
		\"ports\": [{\"name\": \"http\", \"containerPort\": 8080}]}]}}" >/dev/null &&
		pod_status "$1" "$2" True
}

# pod_status NAME IP READY
pod_status() {
	api PATCH "$pods_path/$1/status" "{\"status\": {\"phase\": \"Running\",
		\"podIP\": \"$2\", \"podIPs\": [{\"ip\": \"$2\"}],
		\"conditions\": [{\"type\": \"Ready\", \"status\": \"$3\"}]}}" \
		application/strategic-merge-patch+json >/dev/null
}

# The controller decides when: until it has, both states are possible.
controllers_will() { journal slice fake/made sent "$(printf '%s:8080? ' "$@")"; }
controllers_did() { journal slice fake/made "done" "$([ $# -eq 0 ] || with_port "$@")"; }

slices_of_fake() {
	api GET "$(slices_path)?labelSelector=kubernetes.io/service-name%3Dfake" |
		jq -c "[.items[].endpoints[]? | select($1) | .addresses[0]] | sort"
}
slices_say() { [ "$(slices_of_fake "$1")" = "$2" ]; }

kubectl create -f - >/dev/null <<-'END'
	{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "fake"}}
END
then_ok "the controllers start" controllers_start endpoint,endpointslice,podgc
service_put fake '{"app": "fake"}'
controllers_will 10.5.0.1 10.5.0.2 10.5.0.3
for i in 1 2 3; do
	pod_put "fake-$i" "10.5.0.$i"
done
then_within "ready Pods become backends" 30 "backends_are fake 10.5.0.1 10.5.0.2 10.5.0.3"
controllers_did 10.5.0.1 10.5.0.2 10.5.0.3
controllers_will 10.5.0.1 10.5.0.2 10.5.0.3
pod_status fake-3 10.5.0.3 False
then_within "one that is not ready any more goes" 20 "backends_are fake 10.5.0.1 10.5.0.2"
controllers_did 10.5.0.1 10.5.0.2
controllers_will 10.5.0.1 10.5.0.2
when "the label of a Pod changes"
api PATCH "$pods_path/fake-2" '{"metadata": {"labels": {"app": "other"}}}' \
	application/merge-patch+json >/dev/null
then_within "it is no backend any more" 20 "backends_are fake 10.5.0.1"
api PATCH "$pods_path/fake-2" '{"metadata": {"labels": {"app": "fake"}}}' \
	application/merge-patch+json >/dev/null
then_within "and is again" 20 "backends_are fake 10.5.0.1 10.5.0.2"
when "a Pod is being ended"
api DELETE "$pods_path/fake-1" >/dev/null
then_within "the controller calls it terminating and serving" 20 \
	"slices_say '.conditions.terminating and .conditions.serving' '[\"10.5.0.1\"]'"
then_within "it gets no new connections" 20 "backends_are fake 10.5.0.2"
when "the others are being ended too"
api DELETE "$pods_path/fake-2" >/dev/null
api DELETE "$pods_path/fake-3" >/dev/null
then_within "those that still serve are used" 20 "backends_are fake 10.5.0.1 10.5.0.2"
when "they are gone"
for i in 1 2 3; do
	kubectl -n "$cluster_ns" delete pod "fake-$i" --force --grace-period=0 --wait=false >/dev/null 2>&1
done
then_within "no backend is left" 20 "backends_are fake"
controllers_did
control_end controllers
service_delete fake
