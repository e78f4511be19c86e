#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The way of a plugin author: Patchbay is installed, `plugin new` makes the sources, they are built
# out of tree with nothing but the installed SDK, and the result runs in the installed agent.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/../netns/lib.sh"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
for tool in make clang pkg-config bpftool; do
	command -v $tool >/dev/null || [ -x /usr/sbin/$tool ] || skip_all "needs $tool"
done
sandbox "$0" "$@"

prefix=$(sed -n 's/^prefix=//p' "$PB_TOP_BUILDDIR/sdk/patchbay-sdk.pc")
root=$PB_TMP/root
installed=$root$prefix

# The files below $root believe to be in $prefix.
sdk_make() {
	env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -C my-count \
		PKG_CONFIG_PATH="$installed/lib/pkgconfig" \
		PKG_CONFIG="pkg-config --define-variable=prefix=$installed" "$@"
}

pod_manifest() {
	cat <<-END
		apiVersion: v1
		kind: Pod
		metadata: {name: $1, namespace: default, uid: uid-$1}
		spec: {nodeName: node-a, containers: []}
		status: {phase: Running, podIP: $(pod_ip4 "$1"), podIPs: [{ip: $(pod_ip4 "$1")}]}
	END
}

counted() { patchbay_on node-a my-count show | awk '$1 == "pod-egress" { print $2 }'; }

begin a_plugin_built_with_the_installed_sdk_runs_in_the_installed_agent
given "an installation in a directory of its own"
then_ok "make install" env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS \
	make -C "$PB_TOP_BUILDDIR" -s install DESTDIR="$root"
# shellcheck disable=SC2034 # lib.sh uses it
PB_PATCHBAYD=$installed/sbin/patchbayd
PB_PATCHBAY=$installed/bin/patchbay
PB_PLUGINS=$installed/lib/patchbay/plugins
export PATCHBAY_SDK_DIR=$installed/share/patchbay/sdk

when "a plugin is made from the template"
then_ok "plugin new" "$PB_PATCHBAY" plugin new my-count
then_fails "plugin new again refuses to write into it" "my-count: exists already" \
	"$PB_PATCHBAY" plugin new my-count
then_fails "a bad name is refused" 'plugin name "My_Count": use lower case letters' \
	"$PB_PATCHBAY" plugin new My_Count
then_ok "make" sdk_make
then_ok "make check" sdk_make check
then_ok "make install" sdk_make install DESTDIR=
then_ok "the agent's inspector knows it" "$PB_PATCHBAY" plugin inspect "$PB_PLUGINS/my-count.so"

when "the agent loads it"
node_add node-a
pod_add node-a web
pod_add node-a client
agent_config node-a '{}'
{ pod_manifest web; echo ---; pod_manifest client; } >"$(agent_dir node-a)/manifests/pods.yaml"
then_ok "the agent starts" agent_start node-a
then_ok "plugin load" patchbay_on node-a plugin load my-count
then_within "both pods have an interface" 10 \
	"[ \$(patchbay_on node-a endpoint list | grep -c lxc_) = 2 ]"

# Nobody listens there: what counts is that the packets leave the pod.
datagrams='for i in 1 2 3 4 5 6; do echo $i >/dev/udp/$0/9; done'
run_in client bash -c "$datagrams" "$(pod_ip4 web)" 2>/dev/null
before=$(counted)
then_ok "it counted what the pod sent" test "${before:-0}" -ge 6

when "a new version is built and takes over"
sed -i 's/"0\.1\.0"/"0.2.0"/' my-count/my-count.c
then_ok "make" sdk_make install DESTDIR=
then_ok "plugin reload" patchbay_on node-a plugin reload my-count
then_like "the new version serves" "$(patchbay_on node-a plugin list)" 'my-count .*0\.2\.0'
then_ok "and its map went on counting" test "$(counted)" -ge "${before:-1}"
then_ok "plugin unload" patchbay_on node-a plugin unload my-count
then_fails "its command is gone" "" patchbay_on node-a my-count show
agent_stop node-a
done_testing
