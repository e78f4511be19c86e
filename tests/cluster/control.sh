# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# A control plane of our own in namespace "control": etcd, kube-apiserver and, where a test needs
# real controllers, kube-controller-manager. Sourced by lib.sh.
#
# Owns their keys, data, logs and pids, all below $PB_TMP/control, so that they end and vanish with
# the sandbox. Nothing is reachable from outside the sandbox.

control=${PB_TMP:-}/control
control_etcd=http://127.0.0.1:2379
control_service_range=10.96.0.0/16
declare -A control_pid

control_ip() { node_ip4 control; }
control_bin() { echo "${PB_CLUSTER_BIN:?}/$1"; }

# Why it can't run here; prints nothing when it can.
control_missing() {
	local name

	for name in etcd etcdctl kube-apiserver kube-controller-manager kubectl; do
		[ -x "${PB_CLUSTER_BIN:-}/$name" ] ||
			{ echo "no $name: run make check-cluster, which builds it"; return; }
	done
	for name in openssl curl jq ss; do
		command -v $name >/dev/null || { echo "needs $name: ./quickstart check installs it"; return; }
	done
}

# ---- keys -----------------------------------------------------------------------------------

# control_cert NAME SUBJECT [ALT_NAMES]: a key and a certificate of our authority.
control_cert() {
	local name=$1 pki=$control/pki

	cat >"$pki/$name.ext" <<-END
		basicConstraints=CA:FALSE
		keyUsage=digitalSignature,keyEncipherment
		extendedKeyUsage=clientAuth,serverAuth
		${3:+subjectAltName=$3}
	END
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" \
		-keyout "$pki/$name.key" -out "$pki/$name.csr" 2>/dev/null &&
		openssl x509 -req -in "$pki/$name.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" \
			-CAcreateserial -days 2 -extfile "$pki/$name.ext" -out "$pki/$name.crt" 2>/dev/null
}

control_keys() {
	local pki=$control/pki

	mkdir -p "$pki"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-subj "/CN=patchbay-check" -addext basicConstraints=critical,CA:TRUE \
		-addext keyUsage=critical,keyCertSign,digitalSignature \
		-keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null || return
	control_cert apiserver /CN=kube-apiserver "IP:$(control_ip),IP:127.0.0.1,DNS:kubernetes" &&
		control_cert admin /O=system:masters/CN=check-admin || return
	openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null &&
		openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
}

# control_kubeconfig FILE CERT
control_kubeconfig() {
	cat >"$1" <<-END
		apiVersion: v1
		kind: Config
		clusters:
		- name: own
		  cluster: {server: "https://$(control_ip):6443", certificate-authority: $control/pki/ca.crt}
		users:
		- name: own
		  user: {client-certificate: $control/pki/$2.crt, client-key: $control/pki/$2.key}
		contexts:
		- name: own
		  context: {cluster: own, user: own}
		current-context: own
	END
}

# ---- programs -------------------------------------------------------------------------------

# control_spawn NAME COMMAND...: in the background, in the namespace; its log is in $control.
control_spawn() {
	local name=$1

	shift
	# No function in between: the pid has to be the program's.
	nsenter --net=/run/netns/control -- "$@" </dev/null >>"$control/$name.log" 2>&1 &
	control_pid[$name]=$!
}

control_alive() { kill -0 "${control_pid[$1]:-0}" 2>/dev/null; }

# control_end NAME [SIGNAL]
control_end() {
	[ -z "${control_pid[$1]:-}" ] || end_pid "${control_pid[$1]}" "${2:-TERM}"
	unset "control_pid[$1]"
}

# control_wait NAME CONDITION: until it is true; shows the log when the program ended instead.
control_wait() {
	wait_until "$2 || ! control_alive $1" 90
	control_alive "$1" && eval "$2" && return
	note "$1 did not come up:"
	show_file "$control/$1.log"
	return 1
}

# Data is in memory and lives as long as the test: nothing has to reach a disk.
etcd_start() {
	control_spawn etcd env GOGC=400 "$(control_bin etcd)" --name own --data-dir "$control/etcd" \
		--listen-client-urls $control_etcd --advertise-client-urls $control_etcd \
		--listen-peer-urls http://127.0.0.1:2380 \
		--initial-advertise-peer-urls http://127.0.0.1:2380 \
		--initial-cluster own=http://127.0.0.1:2380 \
		--quota-backend-bytes 4294967296 --log-level warn
	control_wait etcd "in_net control curl -sf -o /dev/null $control_etcd/health"
}

etcdctl() { in_net control env ETCDCTL_API=3 "$(control_bin etcdctl)" --endpoints $control_etcd "$@"; }

apiserver_spawn() {
	local pki=$control/pki flags=(--profiling=false)

	# Kubernetes 1.20 as Debian has it: see tests/cluster/build.
	# shellcheck disable=SC2154 # set by lib.sh
	[ "$cluster_discovery" != v1 ] || flags+=(--runtime-config discovery.k8s.io/v1=true)
	control_spawn apiserver env GOGC=400 "$(control_bin kube-apiserver)" --etcd-servers $control_etcd \
		--bind-address 0.0.0.0 --secure-port 6443 --insecure-port 0 \
		--advertise-address "$(control_ip)" \
		--service-cluster-ip-range $control_service_range --client-ca-file "$pki/ca.crt" \
		--tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
		--service-account-issuer https://kubernetes.default.svc \
		--service-account-key-file "$pki/sa.pub" \
		--service-account-signing-key-file "$pki/sa.key" \
		--authorization-mode RBAC --disable-admission-plugins ServiceAccount,TaintNodesByCondition \
		--feature-gates EndpointSliceNodeName=true,EndpointSliceTerminatingCondition=true,APIPriorityAndFairness=false \
		--max-requests-inflight 2000 --max-mutating-requests-inflight 1000 "${flags[@]}"
}

# shellcheck disable=SC2317 # called by control_wait
apiserver_ready() {
	in_net control curl -sf -o /dev/null -m 5 --cacert "$control/pki/ca.crt" --cert "$control/pki/admin.crt" \
		--key "$control/pki/admin.key" "https://127.0.0.1:6443/readyz"
}

apiserver_start() {
	apiserver_spawn
	control_wait apiserver apiserver_ready
}

# controllers_start LIST
controllers_start() {
	control_spawn controllers "$(control_bin kube-controller-manager)" --leader-elect=false \
		--kubeconfig "$control/admin.kubeconfig" --port 0 --bind-address 127.0.0.1 \
		--service-account-private-key-file "$control/pki/sa.key" \
		--use-service-account-credentials=false --controllers "$1" \
		--feature-gates EndpointSliceNodeName=true,EndpointSliceTerminatingCondition=true
}

# control_start: node "control" exists; afterwards the API server answers.
control_start() {
	mkdir -p "$control"
	control_keys || { note "no keys: openssl failed"; return 1; }
	control_kubeconfig "$control/admin.kubeconfig" admin
	etcd_start && apiserver_start
}
