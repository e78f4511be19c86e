# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the network tests, the demo and the benchmark stand on: TAP output, a private sandbox, nodes
# and pods as network namespaces, agents in them. Source it, then call sandbox first:
#
#   . "$(dirname "$0")/lib.sh"
#   sandbox "$0" "$@"            # from here on: own network, mounts, processes and cgroup
#   node_add node-a; pod_add node-a web; pod_add node-a client
#
#   begin E3_same_address_same_port_in_two_slices_delete_one
#   given "a service with one backend in two slices"
#   when "one slice is deleted"
#   then_ok "the client still reaches it" run_in client curl -s http://10.96.0.1/
#   done_testing
#
# A sandbox is a network, mount and PID namespace plus a cgroup of its own. Its end ends every
# process in it and takes namespaces, links and pins along; the outer half of sandbox() removes
# the two things that would stay, the cgroup and the temporary directory, and reports what it
# could not remove. Nothing outside is changed. No pid is ever searched for by name.
#
# Rules: wait_until is the only way to wait. Never `ip netns exec` (it hides bpffs and cgroups).

PB_TOP_SRCDIR=${PB_TOP_SRCDIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
PB_TOP_BUILDDIR=${PB_TOP_BUILDDIR:-$PB_TOP_SRCDIR/build}
PB_PATCHBAYD=${PB_PATCHBAYD:-$PB_TOP_BUILDDIR/patchbayd}
PB_PATCHBAY=${PB_PATCHBAY:-$PB_TOP_BUILDDIR/patchbay}
PB_TOOLS=${PB_TOOLS:-$PB_TOP_BUILDDIR/tests/tools}

# ---- TAP ------------------------------------------------------------------------------------

tap_n=0
tap_failed=0
tap_prefix=

# The plan of a test that can't run at all. Says why; ends the script successfully.
skip_all() {
	echo "1..0 # SKIP $*"
	exit 0
}

# Starts a case: its name opens the names of all tests that follow.
begin() {
	tap_prefix="$1: "
	echo "# ---- $1"
}
given() { echo "# given $*"; }
when() { echo "# when $*"; }
note() { echo "# $*"; }

ok() {
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $tap_prefix$*"
}

not_ok() {
	tap_n=$((tap_n + 1))
	tap_failed=$((tap_failed + 1))
	echo "not ok $tap_n - $tap_prefix$*"
}

# skip DESCRIPTION REASON: one test that can't run here.
skip() {
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $tap_prefix$1 # SKIP $2"
}

show_file() { sed 's/^/#     /' "$1" | tail -n "${2:-20}"; }

# then_ok DESCRIPTION COMMAND...: the command succeeds.
then_ok() {
	local what=$1 rc=0

	shift
	"$@" >"$PB_TMP/out" 2>&1 || rc=$?
	if [ $rc -eq 0 ]; then
		ok "$what"
	else
		not_ok "$what"
		note "    exit code $rc of: $*"
		show_file "$PB_TMP/out"
	fi
}

# then_fails DESCRIPTION TEXT COMMAND...: the command fails and says TEXT (a part of it; may be "").
then_fails() {
	local what=$1 text=$2 rc=0

	shift 2
	"$@" >"$PB_TMP/out" 2>&1 || rc=$?
	if [ $rc -ne 0 ] && grep -qF -e "$text" "$PB_TMP/out"; then
		ok "$what"
	else
		not_ok "$what"
		note "    exit code $rc, expected a failure that says \"$text\", of: $*"
		show_file "$PB_TMP/out"
	fi
}

# then_is DESCRIPTION ACTUAL EXPECTED
then_is() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1"
		note "    is       $2"
		note "    expected $3"
	fi
}

# then_like DESCRIPTION TEXT PATTERN: an extended regular expression is found in the text.
then_like() {
	if grep -qE -e "$3" <<<"$2"; then
		ok "$1"
	else
		not_ok "$1"
		note "    no match for $3 in:"
		show_file /dev/stdin <<<"$2"
	fi
}

# then_within DESCRIPTION SECONDS CONDITION: the condition becomes true in time.
then_within() {
	if wait_until "$3" "$2"; then
		ok "$1"
	else
		not_ok "$1"
		note "    not within $2 s: $3"
	fi
}

# Prints the plan. Under make the TAP driver counts the lines, else the exit code tells.
done_testing() {
	echo "1..$tap_n"
	[ $tap_failed -eq 0 ] || [ -n "${MAKELEVEL:-}" ] || exit 1
	exit 0
}

# wait_until CONDITION SECONDS: polls a shell condition until it is true or the time is over.
wait_until() {
	local deadline=$(($(date +%s%N) + ${2%%.*} * 1000000000))

	until eval "$1" >/dev/null 2>&1; do
		[ "$(date +%s%N)" -lt $deadline ] || return 1
		sleep 0.02
	done
}

# ---- sandbox --------------------------------------------------------------------------------

# The cgroup2 mount, wherever this machine has it.
cgroup2_mount() { awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts; }

# Why this machine can't run a sandbox; prints nothing when it can.
sandbox_missing() {
	local tool

	[ "$(id -u)" = 0 ] || { echo "needs root"; return; }
	for tool in ip nsenter unshare setpriv; do
		command -v $tool >/dev/null || { echo "needs $tool: apt install iproute2 util-linux"; return; }
	done
	grep -qw bpf /proc/filesystems || { echo "the kernel has no bpffs (CONFIG_BPF_SYSCALL)"; return; }
	[ -n "$(cgroup2_mount)" ] ||
		{ echo "no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup"; return; }
	[ -w "$(cgroup2_mount)/cgroup.procs" ] || { echo "the cgroup2 mount is read-only"; return; }
	unshare -n -m -p --fork --propagation private true 2>/dev/null ||
		{ echo "namespaces are not allowed here (unshare failed)"; return; }
}

# Ends a cgroup tree of ours: processes have died with the sandbox, so only directories are left.
cgroup_remove() {
	[ ! -d "$1" ] || find "$1" -depth -type d -exec rmdir {} + 2>/dev/null
	[ ! -d "$1" ]
}

sandbox_end() {
	[ -z "${sandbox_pid:-}" ] || kill -9 "$sandbox_pid" 2>/dev/null
	wait 2>/dev/null
	[ -z "${PB_SANDBOX_PIDFILE:-}" ] || rm -f "$PB_SANDBOX_PIDFILE"
	wait_until "cgroup_remove '$PB_CGROUP'" 5 || echo "# left behind: cgroup $PB_CGROUP" >&2
	rmdir "$PB_TMP" || echo "# left behind: directory $PB_TMP" >&2
}

# sandbox SCRIPT ARGS...: runs the script again inside a sandbox; returns only in there.
sandbox() {
	local missing script rc=0

	if [ -n "${PB_SANDBOX:-}" ]; then
		sandbox_inside
		return
	fi
	missing=$(sandbox_missing)
	[ -z "$missing" ] || skip_all "$missing"
	script=$1
	shift
	PB_TMP=$(mktemp -d "${TMPDIR:-/tmp}/patchbay.XXXXXX") || exit 1
	PB_CGROUP=$(cgroup2_mount)/patchbay-sandbox.$$
	mkdir "$PB_CGROUP" || exit 1
	export PB_TMP PB_CGROUP PB_TOP_SRCDIR PB_TOP_BUILDDIR
	trap sandbox_end EXIT
	trap 'exit 130' INT TERM HUP
	# Killed with -9, this half takes the sandbox along: only empty directories are left.
	PB_SANDBOX=1 setpriv --pdeathsig KILL unshare -n -m -p --fork --kill-child --mount-proc --propagation private \
		bash "$script" "$@" &
	sandbox_pid=$!
	[ -z "${PB_SANDBOX_PIDFILE:-}" ] || echo "$sandbox_pid" >"$PB_SANDBOX_PIDFILE"
	wait "$sandbox_pid" || rc=$?
	sandbox_pid=
	exit $rc
}

# First steps inside: everything that an agent may write to is private and in memory.
sandbox_inside() {
	set -u
	mount -t tmpfs tmpfs "$PB_TMP"
	mkdir -p "$PB_TMP/bpf" /run/netns
	mount -t bpf bpf "$PB_TMP/bpf"
	mount -t tmpfs tmpfs /run/netns
	ip link set lo up
	cd "$PB_TMP" || exit 1
	trap 'exit 143' TERM
}

# ---- nodes and pods -------------------------------------------------------------------------
#
# One bridge in a namespace "wire" joins the nodes: 192.168.50.N and fd00:50::N on eth0. Pods of
# node N have 10.244.N.M and fd00:244:N::M with host routes; the node routes between them.

declare -A node_index pod_node pod_index pods_on
nodes=()

netns_add() {
	ip netns add "$1"
	ip -n "$1" link set lo up
}

# in_net NAME COMMAND...: runs a command in a namespace, outside its cgroup.
in_net() {
	local ns=$1

	shift
	nsenter --net="/run/netns/$ns" -- "$@"
}

sysctl_in() {
	local ns=$1

	shift
	in_net "$ns" sysctl -qw "$@"
}

wire_add() {
	[ ! -e /run/netns/wire ] || return 0
	netns_add wire
	ip -n wire link add br0 type bridge
	ip -n wire link set br0 up
}

# Routes between two nodes and their pods, both ways are two calls.
node_route() {
	local from=$1 to=${node_index[$2]}

	ip -n "$from" route add "10.244.$to.0/24" via "192.168.50.$to"
	ip -n "$from" -6 route add "fd00:244:$to::/64" via "fd00:50::$to"
}

# node_add NAME
node_add() {
	local node=$1 i=$((${#nodes[@]} + 1)) other

	wire_add
	netns_add "$node"
	sysctl_in "$node" net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 \
		net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	ip link add eth0 netns "$node" type veth peer name "port$i" netns wire
	ip -n wire link set "port$i" master br0 up
	ip -n "$node" link set eth0 up
	ip -n "$node" addr add "192.168.50.$i/24" dev eth0
	ip -n "$node" -6 addr add "fd00:50::$i/64" dev eth0 nodad
	node_index[$node]=$i
	pods_on[$node]=0
	for other in ${nodes[@]+"${nodes[@]}"}; do
		node_route "$node" "$other"
		node_route "$other" "$node"
	done
	nodes+=("$node")
	mkdir -p "$PB_CGROUP/$node"
}

# pod_add NODE POD: the host side of its veth is lxc_POD.
pod_add() {
	local node=$1 pod=$2 i=${node_index[$1]} n

	n=$((${pods_on[$node]} + 2))
	pods_on[$node]=$((n - 1))
	pod_node[$pod]=$node
	pod_index[$pod]=$n
	netns_add "$pod"
	sysctl_in "$pod" net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
	ip link add eth0 netns "$pod" type veth peer name "$(pod_link "$pod")" netns "$node"
	ip -n "$node" link set "$(pod_link "$pod")" up
	ip -n "$node" addr add "10.244.$i.1/32" dev "$(pod_link "$pod")"
	ip -n "$node" -6 addr add "fd00:244:$i::1/128" dev "$(pod_link "$pod")" nodad
	ip -n "$pod" link set eth0 up
	ip -n "$pod" addr add "10.244.$i.$n/32" dev eth0
	ip -n "$pod" -6 addr add "fd00:244:$i::$n/128" dev eth0 nodad
	ip -n "$pod" route add "10.244.$i.1" dev eth0
	ip -n "$pod" route add default via "10.244.$i.1"
	ip -n "$pod" -6 route add "fd00:244:$i::1" dev eth0
	ip -n "$pod" -6 route add default via "fd00:244:$i::1"
	ip -n "$node" route add "10.244.$i.$n" dev "$(pod_link "$pod")"
	ip -n "$node" -6 route add "fd00:244:$i::$n" dev "$(pod_link "$pod")"
	mkdir -p "$PB_CGROUP/$node/$pod"
}

pod_link() { local name="lxc_$1"; echo "${name:0:15}"; }
pod_ip4() { echo "10.244.${node_index[${pod_node[$1]}]}.${pod_index[$1]}"; }
pod_ip6() { echo "fd00:244:${node_index[${pod_node[$1]}]}::${pod_index[$1]}"; }
node_ip4() { echo "192.168.50.${node_index[$1]}"; }
node_ip6() { echo "fd00:50::${node_index[$1]}"; }

# The cgroup of a pod, or of a node (for what runs with the host network).
cgroup_of() {
	if [ -n "${pod_node[$1]:-}" ]; then
		echo "$PB_CGROUP/${pod_node[$1]}/$1"
	else
		echo "$PB_CGROUP/$1"
	fi
}

# run_in POD|NODE COMMAND...: in its network namespace and in its cgroup.
run_in() {
	local where=$1 cgroup

	shift
	cgroup=$(cgroup_of "$where")
	# shellcheck disable=SC2016 # the inner shell expands these
	nsenter --net="/run/netns/$where" -- \
		bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" "$@"
}

# spawn_in POD|NODE COMMAND...: the same in the background; its pid is in $spawned.
spawn_in() {
	local where=$1 cgroup

	shift
	cgroup=$(cgroup_of "$where")
	# shellcheck disable=SC2016 # the inner shell expands these
	nsenter --net="/run/netns/$where" -- \
		bash -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" "$@" &
	# shellcheck disable=SC2034 # for the caller
	spawned=$!
}

# end_pid PID [SIGNAL]: ends a process of ours and waits for it.
end_pid() {
	kill "-${2:-TERM}" "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}

# ---- agents ---------------------------------------------------------------------------------

declare -A agent_pid

agent_dir() { echo "$PB_TMP/agents/$1"; }
agent_bpffs() { echo "$PB_TMP/bpf/$1"; }
agent_socket() { echo "$(agent_dir "$1")/patchbay.sock"; }
agent_log() { echo "$(agent_dir "$1")/log"; }

# Why agents can't be tested; prints nothing when they can.
agent_missing() {
	[ -x "$PB_PATCHBAYD" ] && [ -x "$PB_PATCHBAY" ] || echo "patchbayd and patchbay are not built"
}

# The built plugins in one directory that satisfies the loader: root's, not writable by others.
plugins_stage() {
	local so

	[ ! -d "$PB_TMP/plugins" ] || return 0
	install -d -m 0755 "$PB_TMP/plugins"
	for so in "$PB_TOP_BUILDDIR"/plugins/*/.libs/*.so "$PB_TOP_BUILDDIR"/.libs/*.so; do
		[ ! -f "$so" ] || install -m 0644 "$so" "$PB_TMP/plugins/"
	done
}

# agent_config NODE [PLUGINS_YAML [EXTRA_YAML]]: writes a configuration. Manifests are read from
# $PB_MANIFESTS, or else from agent_dir/manifests. EXTRA_YAML is appended as it is.
agent_config() {
	local node=$1 dir

	dir=$(agent_dir "$node")
	plugins_stage
	mkdir -p "$dir/manifests" "$(agent_bpffs "$node")"
	cat >"$dir/patchbay.yaml" <<-END
		node: {name: $node}
		kubernetes: {source: manifests, manifests: ${PB_MANIFESTS:-$dir/manifests}}
		datapath:
		  devices: [eth0]
		  cgroup: $PB_CGROUP/$node
		  bpffs: $(agent_bpffs "$node")
		  attach: ${PB_ATTACH:-auto}
		control: {socket: $(agent_socket "$node")}
		agent: {run_dir: $dir/run, plugin_dir: ${PB_PLUGINS:-$PB_TMP/plugins}}
		plugins: ${2:-"{endpointslice: {}, kpr: {}}"}
		${3:-}
	END
}

agent_ready() { patchbay_on "$1" status | grep -q '^state  *ready'; }

# agent_start NODE: starts the agent of a node with its configuration and waits until it is ready:
# it answers before, while it may still be reading the plugins' files.
agent_start() {
	local node=$1

	[ -f "$(agent_dir "$node")/patchbay.yaml" ] || agent_config "$node"
	nsenter --net="/run/netns/$node" -- \
		"$PB_PATCHBAYD" --config "$(agent_dir "$node")/patchbay.yaml" \
		>>"$(agent_log "$node")" 2>&1 &
	agent_pid[$node]=$!
	if ! wait_until "agent_ready $node || ! kill -0 ${agent_pid[$node]}" 20 ||
		! kill -0 "${agent_pid[$node]}" 2>/dev/null; then
		note "agent of $node did not come up:"
		show_file "$(agent_log "$node")"
		return 1
	fi
}

# agent_stop NODE [SIGNAL]: ends it; with KILL as a crash would. The datapath stays.
agent_stop() {
	end_pid "${agent_pid[$1]}" "${2:-TERM}"
	unset "agent_pid[$1]"
}

# patchbay_on NODE ARGS...: the command-line tool, talking to the agent of a node.
patchbay_on() {
	local node=$1

	shift
	"$PB_PATCHBAY" --socket "$(agent_socket "$node")" "$@"
}

# What `patchbayd --cleanup` must have removed; prints what is left of an agent of ours.
agent_leftovers() {
	local node=$1

	find "$(agent_bpffs "$node")" -mindepth 1 2>/dev/null
	find "$(agent_dir "$node")/run" -mindepth 1 2>/dev/null
	[ ! -S "$(agent_socket "$node")" ] || agent_socket "$node"
	in_net "$node" tc qdisc show | grep clsact
	bpftool cgroup tree "$PB_CGROUP/$node" 2>/dev/null | awk '$1 ~ /^[0-9]+$/'
}
