#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# patchbay-cni behind the plugin that makes a pod's interface, as a container runtime calls it: with
# a running agent, without one, and over the agent's death. A test plugin drops whatever pods send, so
# a packet that arrives somewhere was sent past the hooks.

# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
cni=$PB_TOP_BUILDDIR/patchbay-cni
[ -x "$cni" ] || skip_all "patchbay-cni is not built"
deny=$PB_TOP_BUILDDIR/tests/plugins/.libs/deny.so
[ -f "$deny" ] || skip_all "tests/plugins/deny.la is not built"

# ---- the runtime ----

# prev POD: what the plugin before says of a pod of pod_add().
prev() {
	printf '{"cniVersion":"1.0.0", "interfaces":[{"name":"%s"},{"name":"eth0","sandbox":"/run/netns/%s"}],' \
		"$(pod_link "$1")" "$1"
	printf ' "ips":[{"address":"%s/32","interface":1},{"address":"%s/128","interface":1}], "dns":{}, "other":{"n":1.0}}' \
		"$(pod_ip4 "$1")" "$(pod_ip6 "$1")"
}

# conf VERSION POD [TIMEOUT]
conf() {
	printf '{"cniVersion":"%s","name":"net","type":"patchbay-cni","socket":"%s","timeout":%d,"prevResult":%s}' \
		"$1" "$(agent_socket node-a)" "${3:-20}" "$(prev "$2")"
}

# run_cni COMMAND POD CONTAINER [NETNS]: reads the configuration; its answer is in $PB_TMP/answer.
run_cni() {
	in_net node-a env CNI_COMMAND="$1" CNI_CONTAINERID="$3" CNI_NETNS="${4-/run/netns/$2}" \
		CNI_IFNAME=eth0 CNI_PATH=/nowhere \
		CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=$2;K8S_POD_UID=uid-$2" \
		"$cni" >"$PB_TMP/answer" 2>"$PB_TMP/cni.err"
}
cni_add() { conf 1.0.0 "$1" "${3:-20}" | run_cni ADD "$1" "$2"; }
cni_del() { conf 1.0.0 "$1" | run_cni DEL "$1" "$2"; }
cni_check() { conf "${3:-1.0.0}" "$1" | run_cni CHECK "$1" "$2"; }
answer() { jq -r "$1" "$PB_TMP/answer"; }

# fails_with CODE DESCRIPTION COMMAND...: exit code 1 and a CNI error of that code.
fails_with() {
	local code=$1 what=$2

	shift 2
	"$@"
	then_is "$what: exit code, CNI code" "$? $(answer .code)" "1 $code"
}

# ---- what the agent has ----

manifests=$PB_TMP/manifests
mkdir "$manifests"
export PB_MANIFESTS=$manifests

# pod_object POD [IP]: puts a pod of node-a into the list.
pod_object() {
	local ips=

	[ $# -lt 2 ] || ips=", podIP: \"$2\", podIPs: [{ip: \"$2\"}]"
	cat >"$manifests/.$1" <<-END
		{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: $1, uid: uid-$1, labels: {app: $1}},
		 spec: {nodeName: node-a}, status: {phase: Running$ips}}
	END
	mv "$manifests/.$1" "$manifests/$1.yaml"
}
row() { patchbay_on node-a endpoint list -o json | jq -r ".[] | select(.pod == \"$1\") | $2"; }
rows() { patchbay_on node-a endpoint list -o json | jq length; }
denied() { patchbay_on node-a status -o json | jq '[.datapath | .. | objects | select(.reason? == "policy-denied" or .reason? == "policy denied") | .packets // .count] | add // 0'; }
# Datagrams that reached the node-b, which nobody else sends any.
arrived() { in_net node-b awk '/^Udp:/ && $2 ~ /^[0-9]/ {print $2 + $3}' /proc/net/snmp; }
# The gateway's address is known, so that the first frame is the first datagram.
gateway_known() {
	ip -n "$1" neigh replace "10.244.1.1" dev eth0 nud permanent \
		lladdr "$(ip -n node-a -j link show "$(pod_link "$1")" | jq -r '.[0].address')"
}
# send POD COUNT
send() { in_net "$1" bash -c "for ((i = 0; i < $2; i++)); do echo x >/dev/udp/$(node_ip4 node-b)/9; done"; }

node_add node-a
node_add node-b
for pod in web db cache late; do pod_add node-a $pod; gateway_known $pod; done
cat >"$manifests/shop.yaml" <<-END
	{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
END
install -d -m 0755 "$PB_TMP/samples"
install -m 0644 "$deny" "$PB_TMP/samples/"
agent_config node-a "{deny: {path: $PB_TMP/samples/deny.so}}"

begin version
in_net node-a env CNI_COMMAND=VERSION "$cni" </dev/null >"$PB_TMP/answer"
then_is "it names what it knows" "$(answer '.supportedVersions | join(" ")')" "0.3.1 0.4.0 1.0.0"

begin bad_input
while IFS='|' read -r code what text; do
	fails_with "$code" "$what" run_cni ADD web c1 <<<"$text"
done <<END
6|no input|
6|no JSON|{
6|no object|[]
1|no version|{}
1|a version of tomorrow|{"cniVersion":"9.0.0"}
7|an unknown key|{"cniVersion":"1.0.0","sockett":"/x"}
7|a relative socket|{"cniVersion":"1.0.0","socket":"x"}
7|a timeout of 0|{"cniVersion":"1.0.0","timeout":0}
7|a timeout in words|{"cniVersion":"1.0.0","timeout":"30s"}
7|no prevResult|{"cniVersion":"1.0.0"}
7|a prevResult that is a list|{"cniVersion":"1.0.0","prevResult":[]}
7|a prevResult without addresses|{"cniVersion":"1.0.0","prevResult":{}}
7|an address without prefix length|{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"10.1.0.2"}]}}
7|an address that is none|{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"10.1.0/24"}]}}
7|an index beyond the interfaces|{"cniVersion":"1.0.0","prevResult":{"ips":[{"address":"10.1.0.2/24","interface":0}]}}
7|an interface without a name|{"cniVersion":"1.0.0","prevResult":{"interfaces":[{}]}}
7|a name that is too long|{"cniVersion":"1.0.0","prevResult":{"interfaces":[{"name":"abcdefghijklmnop"}]}}
END
fails_with 6 "more than 256 KiB" run_cni ADD web c1 < <(head -c 300000 /dev/zero | tr '\0' ' ')
fails_with 4 "an unknown command" run_cni STATUS web c1 </dev/null
fails_with 4 "no container" run_cni ADD web "" </dev/null
fails_with 4 "a container with a slash" run_cni ADD web ../x </dev/null
fails_with 4 "no network namespace" run_cni ADD web c1 "" </dev/null
conf 1.0.0 web | in_net node-a env CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/web \
	CNI_IFNAME=eth0 CNI_ARGS= "$cni" >"$PB_TMP/answer"
then_is "no pod" "$(answer .code)" 4

begin no_agent
fails_with 11 "ADD is to be tried again" cni_add web c1
then_like "and says what is wrong" "$(answer .details)" 'is patchbayd running'
then_ok "DEL succeeds" cni_del web c1
fails_with 11 "CHECK fails" cni_check web c1

agent_start node-a || skip_all "the agent doesn't start here"

begin labels_that_are_not_known
fails_with 11 "ADD fails when they don't come in time" cni_add web c1 1
then_like "and says why" "$(answer .details)" 'the labels of pod shop/web are not known yet'
then_is "nothing is left of it" "$(rows)" 0
then_is "not even its record" "$(ls "$(agent_dir node-a)/run/endpoints")" ""

begin add
given "a pod object without an address yet"
pod_object web
then_ok "ADD succeeds" cni_add web c1
then_is "prevResult comes back byte for byte" "$(cat "$PB_TMP/answer")" "$(prev web)"
then_is "the endpoint is hooked" "$(row shop/web '"\(.state) \(.source) \(.interface)"')" \
	"hooked cni $(pod_link web)"
then_ok "it has an identity of its own" test "$(row shop/web .identity)" -ge 256
before=$(arrived)
send web 100
then_is "of its first 100 packets none arrives" "$(($(arrived) - before))" 0
then_within "the chain dropped them" 5 "[ \$(denied) -ge 100 ]"

begin check
then_ok "it is as announced" cni_check web c1
then_ok "also by 0.4.0" cni_check web c1 0.4.0
fails_with 1 "0.3.1 has no CHECK" cni_check web c1 0.3.1
fails_with 11 "another sandbox's isn't" cni_check web c2
fails_with 11 "nor another pod's" cni_check db c1

begin agent_dies_between_add_and_the_pods_address
id=$(row shop/web .endpoint)
before=$(arrived)
in_net web bash -c "while :; do echo x; sleep 0.01; done >/dev/udp/$(node_ip4 node-b)/9" 2>/dev/null &
sender=$!
agent_stop node-a KILL
fails_with 11 "without the agent ADD of another pod fails" cni_add db c9
agent_start node-a
then_within "the endpoint is there again, with its id" 10 \
	"[ \"\$(row shop/web '\"\(.endpoint) \(.state) \(.source)\"')\" = '$id hooked cni' ]"
then_ok "CHECK succeeds" cni_check web c1
end_pid $sender
then_is "no packet passed meanwhile" "$(($(arrived) - before))" 0

begin pod_goes_while_no_agent_runs
pod_object db
then_ok "ADD of a second pod" cni_add db c2
agent_stop node-a KILL
rm "$manifests/db.yaml"
agent_start node-a
then_within "its endpoint is gone" 10 "[ -z \"\$(row shop/db .pod)\" ]"
then_is "the other one is not" "$(row shop/web .state)" hooked

begin delete
then_ok "of an earlier sandbox" cni_del web c0
then_is "changes nothing" "$(row shop/web .state)" hooked
then_ok "of this one" cni_del web c1
then_is "takes it away" "$(row shop/web .pod)" ""
then_ok "a second time" cni_del web c1
then_is "no record is left" "$(ls "$(agent_dir node-a)/run/endpoints")" ""

begin bridge
given "a pod behind a bridge, whose result names bridge and port"
ip -n node-a link add cni0 type bridge
ip -n node-a link set cni0 up
ip -n node-a link set "$(pod_link cache)" master cni0
pod_object cache
sed "s/\"interfaces\":\[/&{\"name\":\"cni0\"},/; s/\"interface\":1/\"interface\":2/g" < <(conf 0.3.1 cache) \
	>"$PB_TMP/conf"
then_ok "ADD succeeds" run_cni ADD cache c3 <"$PB_TMP/conf"
then_is "the port is hooked" "$(row shop/cache .interface)" "$(pod_link cache)"
cni_del cache c3

begin more_pods_at_once_than_may_wait
given "128 announcements that wait for labels"
pids=()
for ((i = 0; i < 128; i++)); do
	patchbay_on node-a endpoint add "{\"namespace\":\"shop\",\"name\":\"crowd-$i\",\"interface\":\"$(pod_link db)\",\"addresses\":[\"10.244.9.$i\"],\"timeout_ms\":10000}" >/dev/null 2>&1 &
	pids+=($!)
done
then_within "all of them wait" 9 "[ \$(rows) -ge 128 ]"
pod_object cache
then_ok "ADD tries again until there is room" cni_add cache c5
for pid in "${pids[@]}"; do wait "$pid"; done
then_ok "DEL" cni_del cache c5

begin macvlan
netns_add mac
if ip -n node-a link add mac0 link eth0 type macvlan 2>/dev/null; then
	ip -n node-a link set mac0 netns mac name eth0
	fails_with 7 "it is refused" run_cni ADD mac c4 < <(printf '{"cniVersion":"1.0.0","socket":"%s","prevResult":{"ips":[{"address":"192.168.50.77/24"}]}}' "$(agent_socket node-a)")
	then_like "with the reason" "$(answer .details)" 'eth0 is a macvlan'
else
	skip "it is refused" "the kernel has no macvlan"
fi

begin early_attach_without_the_plugin
given "a pod that sends before anybody knows of it"
ip -n node-a link set "$(pod_link late)" down
in_net late bash -c "while :; do echo x; sleep 0.01; done >/dev/udp/$(node_ip4 node-b)/9" 2>/dev/null &
sender=$!
cat >"$manifests/node.yaml" <<-END
	{apiVersion: v1, kind: Node, metadata: {name: node-a}, spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}}
END
when "its link comes up and gets its route"
ip -n node-a link set "$(pod_link late)" up
ip -n node-a route replace "$(pod_ip4 late)" dev "$(pod_link late)"
then_within "it is hooked, as nobody's" 10 \
	"patchbay_on node-a endpoint list -o json | jq -e '.[] | select(.interface == \"$(pod_link late)\" and .state == \"init\")'"
id=$(row "" 'select(.interface == "'"$(pod_link late)"'") | .endpoint')
before=$(arrived)
send late 100
then_is "from then on no packet passes" "$(($(arrived) - before))" 0
when "its object comes"
pod_object late "$(pod_ip4 late)"
then_within "the same endpoint has its pod" 10 \
	"[ \"\$(row shop/late '\"\(.endpoint) \(.state) \(.source)\"')\" = '$id hooked netlink' ]"
end_pid $sender
then_is "no packet met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0

begin cleanup
agent_stop node-a
then_ok "it succeeds" in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(agent_dir node-a)/patchbay.yaml"
then_is "nothing is left" "$(agent_leftovers node-a)" ""
done_testing
