# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the cluster tests stand on, besides tests/netns/lib.sh: an API server, objects at it with a
# journal of every change, an agent on node-a that reads from it, the independent reader of maps.
#
#   . "$(dirname "$0")/lib.sh"
#   cluster_sandbox "$0" "$@"
#   cluster_start                          # own control plane, or the one of $KUBECONFIG
#   agent_from_api && agent_start node-a
#   reader_start
#   service_put web; slice_put web web-a 10.1.0.1 10.1.0.2
#   then_within "they are in the map" 10 "backends_are web 10.1.0.1 10.1.0.2"
#   then_never_wrong
#   cluster_end; done_testing
#
# Without KUBECONFIG the server runs in namespace "control" of the sandbox. With it, that namespace
# has a relay: the API server is then the only thing outside the sandbox that anything here reaches.
# Either way the agent sees https://192.168.50.2:6443 and the wire between can be cut.
#
# Owns the namespace patchbay-check-N at the server and everything named like it, and the journal:
# no change may be made at the server that is not in it.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../netns/lib.sh"
cluster_here=$PB_TOP_SRCDIR/tests/cluster
# shellcheck source=tests/cluster/control.sh
. "$cluster_here/control.sh"

cluster_own() { [ -z "${KUBECONFIG:-}" ]; }

# The descriptor leads from the sandbox to the network that the cluster of KUBECONFIG is in.
cluster_sandbox() {
	if [ -z "${PB_SANDBOX:-}" ] && ! cluster_own; then
		[ "${PB_CLUSTER_YES:-}" = 1 ] ||
			skip_all "KUBECONFIG is set: make check-cluster says what it would create, and asks"
		exec 8</proc/self/ns/net
	fi
	sandbox "$@"
}

# api_net COMMAND...: where the API server is near, whatever happens on the wire.
api_net() {
	if cluster_own; then
		in_net control "$@"
	else
		nsenter --net=/proc/self/fd/8 -- "$@"
	fi
}

# kubectl as the administrator.
kubectl() { api_net "$cluster_kubectl" --kubeconfig "$cluster_admin" "$@"; }

# ---- the server -----------------------------------------------------------------------------

# shellcheck disable=SC2034 # read by control.sh
cluster_discovery=${PB_CLUSTER_DISCOVERY:-v1}
cluster_n=$(printf %04x%04x $((RANDOM)) $((RANDOM)))
cluster_ns=patchbay-check-$cluster_n
journal=${PB_TMP:-}/journal

cluster_missing() {
	local tool

	agent_missing
	for tool in mapcheck kubeload; do
		[ -x "$PB_TOP_BUILDDIR/tests/cluster/$tool" ] || echo "tests/cluster/$tool is not built"
	done
	for tool in jq curl ss; do
		command -v $tool >/dev/null || echo "needs $tool: ./quickstart check installs it"
	done
	if cluster_own; then
		control_missing
	else
		command -v kubectl >/dev/null || [ -x "${PB_CLUSTER_BIN:-}/kubectl" ] ||
			echo "needs kubectl"
		command -v socat >/dev/null || echo "needs socat: apt install socat"
	fi
}

# The namespace "control" answers for the server of KUBECONFIG.
relay_start() {
	local host=${cluster_url#https://} port=443

	host=${host%%/*}
	if [[ $host =~ ^(.*):([0-9]+)$ ]]; then
		host=${BASH_REMATCH[1]}
		port=${BASH_REMATCH[2]}
	fi
	api_net socat "UNIX-LISTEN:$PB_TMP/api,fork" "TCP:$host:$port" 2>>"$PB_TMP/relay.log" &
	in_net control socat TCP-LISTEN:6443,fork,reuseaddr "UNIX-CONNECT:$PB_TMP/api" \
		2>>"$PB_TMP/relay.log" &
	host=${host#[}
	cluster_tls_name=$(jq -r --arg host "${host%]}" \
		'.clusters[0].cluster."tls-server-name" // $host' "$PB_TMP/foreign.json")
}

cluster_of_kubeconfig() {
	local versions

	cluster_kubectl=$(command -v kubectl || echo "$PB_CLUSTER_BIN/kubectl")
	cluster_admin=$KUBECONFIG
	kubectl config view --raw --minify --flatten -o json >"$PB_TMP/foreign.json" || return
	cluster_url=$(jq -r '.clusters[0].cluster.server' "$PB_TMP/foreign.json")
	jq -r '.clusters[0].cluster."certificate-authority-data" // empty' "$PB_TMP/foreign.json" |
		base64 -d >"$PB_TMP/ca.crt"
	[ -s "$PB_TMP/ca.crt" ] || { note "$KUBECONFIG has no certificate authority"; return 1; }
	versions=$(kubectl get --raw /apis/discovery.k8s.io | jq -r '.versions[].version') || return
	cluster_discovery=$(grep -x v1 <<<"$versions" || echo v1beta1)
	relay_start
}

cluster_of_our_own() {
	cluster_kubectl=$(control_bin kubectl)
	cluster_admin=$control/admin.kubeconfig
	cluster_url=https://$(control_ip):6443
	cluster_tls_name=
	control_start || return
	cp "$control/pki/ca.crt" "$PB_TMP/ca.crt"
}

# A role for whoever makes the changes: it can do nothing outside its namespace.
driver_yaml() {
	cat <<-END
		apiVersion: v1
		kind: ServiceAccount
		metadata: {name: driver, namespace: $cluster_ns}
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: Role
		metadata: {name: driver, namespace: $cluster_ns}
		rules:
		- {apiGroups: [""], resources: [services, pods, pods/status], verbs: ["*"]}
		- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: ["*"]}
		---
		apiVersion: rbac.authorization.k8s.io/v1
		kind: RoleBinding
		metadata: {name: driver, namespace: $cluster_ns}
		roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: driver}
		subjects: [{kind: ServiceAccount, name: driver, namespace: $cluster_ns}]
	END
}

# The agent's own rights, as deploy/rbac.yaml has them, under names of ours.
rbac_yaml() {
	sed "s/name: patchbay\b/name: $cluster_ns/; s/namespace: kube-system/namespace: $cluster_ns/" \
		"$PB_TOP_SRCDIR/deploy/rbac.yaml"
}

# token_for SERVICE_ACCOUNT FILE: complete at once, as a kubelet does it.
token_for() {
	kubectl create -f - --raw "/api/v1/namespaces/$cluster_ns/serviceaccounts/$1/token" <<-'END' |
		{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
	END
		jq -er .status.token >"$2.new" && mv "$2.new" "$2"
}

cluster_start() {
	node_add node-a
	node_add control
	: >"$journal"
	if cluster_own; then cluster_of_our_own; else cluster_of_kubeconfig; fi || return
	kubectl create namespace "$cluster_ns" >/dev/null || return
	trap 'cluster_end; exit 143' TERM
	{ rbac_yaml; echo ---; driver_yaml; } | kubectl apply -f - >/dev/null || return
	token_for "$cluster_ns" "$PB_TMP/agent.token" && token_for driver "$PB_TMP/driver.token"
}

# Our own control plane ends with the sandbox; at another one everything of ours is removed.
cluster_end() {
	cluster_own && return
	kubectl delete --wait=false --ignore-not-found \
		"clusterrolebinding/$cluster_ns" "clusterrole/$cluster_ns" "namespace/$cluster_ns" \
		>/dev/null || note "left behind at the cluster: everything named $cluster_ns"
}

# ---- objects --------------------------------------------------------------------------------

journal() { echo "$(date +%s%N) $*" >>"$journal"; }

# api METHOD PATH [BODY [CONTENT_TYPE]]: the answer; fails when it is an error.
api() {
	api_net curl -sS --fail-with-body -m 20 --noproxy '*' --cacert "$PB_TMP/ca.crt" -X "$1" \
		-H "Authorization: Bearer $(cat "$PB_TMP/driver.token")" \
		-H "Content-Type: ${4:-application/json}" ${3:+-d "$3"} "$cluster_url$2"
}

services_path() { echo "/api/v1/namespaces/$cluster_ns/services"; }
slices_path() {
	echo "/apis/discovery.k8s.io/$cluster_discovery/namespaces/$cluster_ns/endpointslices"
}

declare -A vip_of slice_exists

# service_put NAME [SELECTOR_JSON]: one port, 80 to 8080. Its address is in ${vip_of[NAME]}.
service_put() {
	local name=$1 answer

	answer=$(api POST "$(services_path)" "{
		\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"$name\"},
		\"spec\": {\"selector\": ${2:-null},
		\"ports\": [{\"name\": \"http\", \"port\": 80, \"targetPort\": 8080}]}}") ||
		{ note "$answer"; return 1; }
	vip_of[$name]=$(jq -r .spec.clusterIP <<<"$answer")
	journal service "$name" "done" "$(frontend_of "$name")"
}

frontend_of() {
	case ${vip_of[$1]} in
	*:*) echo "tcp/[${vip_of[$1]}]:80" ;;
	*) echo "tcp/${vip_of[$1]}:80" ;;
	esac
}

service_delete() {
	journal service "$1" sent
	api DELETE "$(services_path)/$1" >/dev/null && journal service "$1" "done"
}

with_port() { printf '%s:8080 ' "$@"; }

slice_json() {
	local service=$1 slice=$2 address list=''

	shift 2
	for address; do
		list+=${list:+,}"{\"addresses\":[\"$address\"],\"conditions\":{\"ready\":true}}"
	done
	cat <<-END
		{"apiVersion": "discovery.k8s.io/$cluster_discovery", "kind": "EndpointSlice",
		"metadata": {"name": "$slice", "labels": {"kubernetes.io/service-name": "$service"}},
		"addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
		"endpoints": [$list]}
	END
}

# slice_put SERVICE SLICE [ADDRESS...]: makes or replaces it.
slice_put() {
	local service=$1 slice=$2 body set method=POST path

	body=$(slice_json "$@")
	shift 2
	set=$([ $# -eq 0 ] || with_port "$@")
	path=$(slices_path)
	if [ -n "${slice_exists[$slice]:-}" ]; then
		method=PUT
		path+=/$slice
	fi
	journal slice "$service/$slice" sent "$set"
	api $method "$path" "$body" >"$PB_TMP/answer" || { show_file "$PB_TMP/answer"; return 1; }
	slice_exists[$slice]=1
	journal slice "$service/$slice" "done" "$set"
}

slice_delete() {
	journal slice "$1/$2" sent
	api DELETE "$(slices_path)/$2" >/dev/null && journal slice "$1/$2" "done"
	unset "slice_exists[$2]"
}

# slice_move SLICE FROM TO [ADDRESS...]: its label names another Service from now on.
slice_move() {
	local slice=$1 from=$2 to=$3

	shift 3
	journal slice "$from/$slice" sent
	journal slice "$to/$slice" sent "$(with_port "$@")"
	api PATCH "$(slices_path)/$slice" \
		"{\"metadata\": {\"labels\": {\"kubernetes.io/service-name\": \"$to\"}}}" \
		application/merge-patch+json >/dev/null || return
	journal slice "$from/$slice" "done"
	journal slice "$to/$slice" "done" "$(with_port "$@")"
}

# ---- the agent ------------------------------------------------------------------------------

# shellcheck disable=SC2120 # arguments are optional here and below
# agent_kubeconfig [USER_JSON]: the agent's own; by default with a token file.
agent_kubeconfig() {
	local name=${cluster_tls_name:+, tls-server-name: $cluster_tls_name}

	cat >"$PB_TMP/agent.kubeconfig.new" <<-END
		apiVersion: v1
		kind: Config
		clusters:
		- name: check
		  cluster: {server: "https://$(node_ip4 control):6443", certificate-authority: $PB_TMP/ca.crt$name}
		users:
		- name: check
		  user: ${1:-"{tokenFile: $PB_TMP/agent.token}"}
		contexts:
		- name: check
		  context: {cluster: check, user: check}
		current-context: check
	END
	mv "$PB_TMP/agent.kubeconfig.new" "$PB_TMP/agent.kubeconfig"
}

agent_file() { echo "$(agent_dir node-a)/patchbay.yaml"; }

# agent_source YAML: the section kubernetes of the agent's configuration.
agent_source() { sed -i "s|^kubernetes: .*|kubernetes: $1|" "$(agent_file)"; }

agent_from_api() {
	agent_kubeconfig
	[ -f "$(agent_file)" ] || agent_config node-a
	agent_source "{source: api, kubeconfig: $PB_TMP/agent.kubeconfig}"
}

kube_status() { patchbay_on node-a status -o json | jq -r ".kubernetes$1"; }
# kind FIELD [KIND]: of EndpointSlices, or of another kind.
kind() { kube_status ".kinds[] | select(.kind == \"${2:-EndpointSlice}\") | .$1"; }
kinds_healthy() {
	[ "$(kube_status '.kinds | map(select(.state != "not watched")) | all(.healthy)')" = true ]
}
hup() { kill -HUP "${agent_pid[node-a]}"; }
# The log from now on; log_says TEXT looks only there.
log_mark() { log_from=$(($(stat -c %s "$(agent_log node-a)") + 1)); }
log_says() { tail -c "+$log_from" "$(agent_log node-a)" | grep -qE -e "$1"; }

# ---- the maps -------------------------------------------------------------------------------

mapcheck() { "$PB_TOP_BUILDDIR/tests/cluster/mapcheck" --bpffs "$(agent_bpffs node-a)" "$@"; }

# backends_of SERVICE: in the map, addresses only; "none" when its frontend isn't there.
backends_of() {
	mapcheck show | awk -v at="$(frontend_of "$1")" '
		$1 == at { found = 1; for (i = 2; i <= NF; i++) { sub(/:8080$/, "", $i); print $i } }
		END { if (!found) print "none" }' | sort | xargs
}

# backends_are SERVICE ADDRESS...
backends_are() {
	local service=$1

	shift
	[ "$(backends_of "$service")" = "$(printf '%s\n' "$@" | sort | xargs)" ]
}

frontends_of_ours() { mapcheck show | wc -l; }

# ---- the reader -----------------------------------------------------------------------------

reader_log=${PB_TMP:-}/reader.log

# reader_start: at another's cluster it leaves other Services alone.
reader_start() {
	local others=()

	cluster_own || others=(--others)
	cluster_own && [ -z "${vip_of[kubernetes]:-}" ] && kubernetes_in_journal
	"$PB_TOP_BUILDDIR/tests/cluster/mapcheck" --bpffs "$(agent_bpffs node-a)" \
		--journal "$journal" --log "$reader_log" --grace "${PB_CLUSTER_GRACE_MS:-5000}" \
		"${others[@]}" watch >"$PB_TMP/reader.json" &
	reader_pid=$!
}

# The one Service that is there before us.
kubernetes_in_journal() {
	vip_of[kubernetes]=10.96.0.1
	journal service kubernetes "done" tcp/10.96.0.1:443
	journal slice kubernetes/kubernetes "done" "$(control_ip):6443?"
}

# How often the reader has looked.
reads() { grep -c '^read ' "$reader_log"; }

# shellcheck disable=SC2120
# A look that begins after now: what it finds wrong is known when this returns.
reader_looks() {
	local n

	n=$(($(reads) + ${1:-2}))
	wait_until "[ \$(reads) -ge $n ]" $((10 + ${1:-2}))
}

# then_never_wrong [DESCRIPTION]: ends the reader.
then_never_wrong() {
	local result

	reader_looks 2
	end_pid "$reader_pid"
	result=$(cat "$PB_TMP/reader.json")
	note "reader: $result"
	then_is "the reader looked every second and was never unable to" \
		"$(jq '.reads > 2 and .failed == 0' "$PB_TMP/reader.json")" true
	then_is "${1:-no backend was wrong at any time}" "$(jq .wrong "$PB_TMP/reader.json")" 0
	[ "$(jq .wrong "$PB_TMP/reader.json")" = 0 ] || show_file <(grep -m 20 '^wrong' "$reader_log")
}

# in_step SECONDS: a Service made now has come through, and so has all that was changed before.
step_count=0
in_step() {
	local name

	step_count=$((step_count + 1))
	name=step-$step_count
	service_put $name && slice_put $name $name "10.200.0.$step_count" &&
		wait_until "backends_are $name 10.200.0.$step_count" "$1"
}

# ---- the wire -------------------------------------------------------------------------------

# Packets vanish in silence: no carrier is lost, nobody is told.
wire_break() {
	journal cut
	ip -n wire link set port1 nomaster
}

# The link goes down, and the agent's connections end with it: what the server has sent already
# must not arrive when the link is back.
wire_down() {
	journal cut
	ip -n wire link set port1 down
	connections_reset
}

wire_back() { ip -n wire link set port1 master br0 up; }

# Ends the agent's connections as a server or firewall does that resets them.
connections_reset() { in_net node-a ss -K dst "$(node_ip4 control)" >/dev/null; }

# ---- the load -------------------------------------------------------------------------------

# load_start ARGS...: kubeload in the background, see its source for the arguments.
load_start() {
	api_net "$PB_TOP_BUILDDIR/tests/cluster/kubeload" --server "$cluster_url" --ca "$PB_TMP/ca.crt" \
		--token-file "$PB_TMP/driver.token" --namespace "$cluster_ns" \
		--discovery "$cluster_discovery" --journal "$journal" "$@" >"$PB_TMP/load.json" &
	load_pid=$!
}

# load_end: waits for it. What it says on standard error is in the test's log.
load_end() { wait "$load_pid"; }
load_result() { jq "$1" "$PB_TMP/load.json"; }
churn_changes() { grep -cE ' slice churn/[^ ]+ done' "$journal"; }

# What the server has, as mapcheck prints it: a line for each Service with its address.
server_backends() {
	{
		api GET "$(services_path)?resourceVersion=0"
		api GET "$(slices_path)?resourceVersion=0"
	} | jq -r -s '
		(.[1].items | group_by(.metadata.labels["kubernetes.io/service-name"])
			| map({(.[0].metadata.labels["kubernetes.io/service-name"]):
				[.[].endpoints[]?.addresses[0] + ":8080"] | unique}) | add // {}) as $backends
		| .[0].items[] | .metadata.name as $name
		| "\($name) " + (["tcp/\(.spec.clusterIP):80"] + ($backends[$name] // []) | join(" "))'
}

# backends_match SERVICE: the map has what the server has.
backends_match() {
	diff <(mapcheck show | grep "^$(frontend_of "$1") " | tr ' ' '\n' | sort) \
		<(server_backends | grep "^$1 " | cut -d ' ' -f 2- | tr ' ' '\n' | sort)
}
# The same for all Services of ours.
backends_match_all() {
	diff <(mapcheck show | grep -vE ':443( |$)' | LC_ALL=C sort) \
		<(server_backends | cut -d ' ' -f 2- | LC_ALL=C sort)
}
