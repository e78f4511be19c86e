#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# ClusterIP Services through plugins endpointslice and kpr: an agent on node-a, real servers in
# pods of both nodes, real clients in a pod and on the node. Backends change by manifest files.

# shellcheck disable=SC2317 # conditions are called by wait_until
# shellcheck source=tests/netns/lib.sh
. "$(dirname "$0")/lib.sh"
sandbox "$0" "$@"
missing=$(agent_missing)
[ -z "$missing" ] || skip_all "$missing"
for tool in load echo httpd; do
	[ -x "$PB_TOOLS/$tool" ] || skip_all "tests/tools/$tool is not built"
done
command -v jq >/dev/null || skip_all "needs jq: apt install jq"

vip=10.96.0.10
vip6=fd00:96::10
manifests=$(agent_dir node-a)/manifests

# ---- manifests ------------------------------------------------------------------------------

# write NAME: a manifest from standard input, complete at once.
write() {
	cat >"$manifests/.$1.new"
	mv "$manifests/.$1.new" "$manifests/$1.yaml"
}

# service NAME PORTS_YAML ADDRESS...
service() {
	local name=$1 ports=$2 ips

	shift 2
	ips=$(printf '"%s", ' "$@")
	write "svc-$name" <<-END
		apiVersion: v1
		kind: Service
		metadata: {name: $name, namespace: shop, uid: $name}
		spec: {type: ClusterIP, clusterIP: "$1", clusterIPs: [${ips%, }], ports: $ports}
	END
}

# slice FILE SERVICE FAMILY PORTS_YAML ADDRESS...
slice() {
	local file=$1 service=$2 family=$3 ports=$4 address

	shift 4
	{
		cat <<-END
			apiVersion: discovery.k8s.io/v1
			kind: EndpointSlice
			metadata: {name: $file, namespace: shop, labels: {kubernetes.io/service-name: $service}}
			addressType: $family
			ports: $ports
			endpoints:
		END
		[ $# -gt 0 ] || echo "  []"
		for address; do
			echo "- {addresses: [\"$address\"], conditions: {ready: true}}"
		done
	} | write "$file"
}

# How many objects of a kind the agent knows.
objects() {
	patchbay_on node-a status -o json |
		jq ".kubernetes.kinds[] | select(.kind == \"$1\") | .objects"
}

http_port='[{name: http, protocol: TCP, port: 8080}]'

# ---- clients --------------------------------------------------------------------------------

# ask FIELD CLIENT LOAD_ARGS...: runs the load generator, prints a field of its result.
ask() {
	local field=$1 client=$2

	shift 2
	run_in "$client" "$PB_TOOLS/load" --seconds 20 "$@" >"$PB_TMP/asked"
	jq -c "$field" "$PB_TMP/asked"
}

good='.answered - .failed - .lost - .wrong'
answers() { ask '.backends | keys | join(" ")' client --count 60 http "$1" 80 | tr -d '"'; }
answers_are() { [ "$(answers "$1")" = "$2" ]; }
services() { patchbay_on node-a service list -o json; }
state_of() { services | jq -r ".[] | select(.name == \"$1\") | .state" | sort -u; }
# in_list JQ_CONDITION: a row of `service list` is like that.
in_list() { [ "$(services | jq "[.[] | select($1)] | length")" -gt 0 ]; }
not_in_list() { [ "$(services | jq "[.[] | select($1)] | length")" -eq 0 ]; }

# ---- set-up ---------------------------------------------------------------------------------

node_add node-a
node_add node-b
pod_add node-a client
pod_add node-a web-1
pod_add node-b web-2
for pod in web-1 web-2; do
	spawn_in $pod "$PB_TOOLS/httpd" $pod 8080
	spawn_in $pod "$PB_TOOLS/echo" 7007
	wait_until "run_in client curl -sf -m 1 http://$(pod_ip4 $pod):8080/" 10
done
agent_config node-a

service web '[{name: http, protocol: TCP, port: 80, targetPort: 8080}]' $vip $vip6
slice web-v4 web IPv4 "$http_port" "$(pod_ip4 web-1)" "$(pod_ip4 web-2)"
slice web-v6 web IPv6 "$http_port" "$(pod_ip6 web-1)" "$(pod_ip6 web-2)"
service dns '[{name: tcp, protocol: TCP, port: 80}, {name: udp, protocol: UDP, port: 80}]' 10.96.0.53
slice dns-v4 dns IPv4 '[{name: tcp, protocol: TCP, port: 8080}, {name: udp, protocol: UDP, port: 7007}]' \
	"$(pod_ip4 web-1)"
service none '[{name: http, protocol: TCP, port: 80}, {name: udp, protocol: UDP, port: 80}]' 10.96.0.99

begin start
then_ok "the agent starts" agent_start node-a
then_within "the service is programmed" 10 "in_list '.name == \"web\" and .state == \"ok\" and .backends == 2'"
[ $tap_failed -eq 0 ] || show_file "$(agent_log node-a)"

begin translation
for address in $vip $vip6 ::ffff:$vip; do
	then_is "TCP to $address is spread over both pods" "$(answers "$address")" "web-1 web-2"
done
then_is "a client on the node itself is translated too" \
	"$(ask '.answered' node-a --count 20 http $vip 80)" 20
then_is "UDP by sendto, answers seem to come from the service" \
	"$(ask "$good" client --count 200 udp 10.96.0.53 80)" 200
then_is "UDP on a connected socket" \
	"$(ask "$good" client --connected --count 200 udp 10.96.0.53 80)" 200
then_is "the peer's name is the frontend" \
	"$(run_in client curl -s -o /dev/null -w '%{remote_ip}' http://$vip/)" $vip
then_is "K16_the peer's name of a mapped address stays mapped" \
	"$(run_in client curl -s -o /dev/null -w '%{remote_ip}' "http://[::ffff:$vip]/")" "::ffff:$vip"

begin K1_tcp_and_udp_on_one_port
then_is "TCP" "$(answers 10.96.0.53)" web-1
then_is "UDP" "$(ask "$good" client --count 50 udp 10.96.0.53 80)" 50

begin K12_no_backend
then_within "it is known" 10 "[ \"\$(state_of none)\" = 'no backends' ]"
then_is "connect is refused" \
	"$(ask '.errors | keys[0]' client --count 5 --timeout-ms 500 crr 10.96.0.99 80)" '"ECONNREFUSED"'
then_is "sendto is refused" \
	"$(ask '.errors | keys[0]' client --count 5 --timeout-ms 500 udp 10.96.0.99 80)" '"ECONNREFUSED"'

begin K13_the_first_backend
when "a backend comes"
slice none-v4 none IPv4 "$http_port" "$(pod_ip4 web-2)"
then_within "it is used" 10 "answers_are 10.96.0.99 web-2"

begin an_endpoint_goes
when "its line leaves the slice"
slice web-v4 web IPv4 "$http_port" "$(pod_ip4 web-1)"
then_within "only the other one answers" 10 "answers_are $vip web-1"
then_is "IPv6 is unharmed" "$(answers $vip6)" "web-1 web-2"

begin E3_same_address_same_port_in_two_slices_delete_one
slice web-v4-twin web IPv4 "$http_port" "$(pod_ip4 web-1)" "$(pod_ip4 web-2)"
then_within "both answer" 10 "answers_are $vip 'web-1 web-2'"
slices=$(objects EndpointSlice)
rm "$manifests/web-v4.yaml"
then_within "the slice is gone" 10 "[ \"\$(objects EndpointSlice)\" = $((slices - 1)) ]"
then_is "both answer still" "$(answers $vip)" "web-1 web-2"

begin K50_two_services_with_one_address
service rival '[{name: http, protocol: TCP, port: 80}]' $vip
slice rival-v4 rival IPv4 "$http_port" "$(pod_ip4 web-2)"
then_within "the second one is reported" 10 \
	"[ \"\$(state_of rival)\" = 'conflict: taken by shop/web' ]"
then_is "the first one has it" "$(answers $vip)" "web-1 web-2"
rm "$manifests/svc-web.yaml"
then_within "the second takes over" 10 "answers_are $vip web-2"
service web '[{name: http, protocol: TCP, port: 80, targetPort: 8080}]' $vip $vip6
rm "$manifests/svc-rival.yaml"
then_within "and the first again" 10 "answers_are $vip 'web-1 web-2'"

# Requests on new connections until traffic_stop; what failed is its output.
traffic_start() {
	spawn_in client "$PB_TOOLS/load" --seconds 60 --workers 2 --rate 500 http $vip 80 \
		>"$PB_TMP/traffic"
	traffic_pid=$spawned
	spawn_in client "$PB_TOOLS/load" --seconds 60 --rate 500 udp 10.96.0.53 80 >"$PB_TMP/traffic-udp"
	udp_pid=$spawned
	spawn_in client "$PB_TOOLS/load" --seconds 60 --rate 500 rr 10.96.0.77 7 >"$PB_TMP/traffic-rr"
	rr_pid=$spawned
}
# Sets unanswered. In this shell, never in a $( ): only the parent can wait for the loads to have
# written their results.
traffic_stop() {
	end_pid $traffic_pid
	end_pid $udp_pid
	end_pid $rr_pid
	unanswered=$(jq -s 'if length == 3 and all(.answered >= 20)
		then map(.failed + .lost + .wrong) | add
		else "too little traffic" end' "$PB_TMP"/traffic*)
}
ids() { patchbay_on node-a map dump kpr/kpr_services -o json | jq -cS 'sort'; }

service echo '[{name: echo, protocol: TCP, port: 7}]' 10.96.0.77
slice echo-v4 echo IPv4 '[{name: echo, protocol: TCP, port: 7007}]' "$(pod_ip4 web-2)"
wait_until "in_list '.name == \"echo\" and .state == \"ok\"'" 10

begin K55_reload
given "new connections, datagrams and a long connection through services"
traffic_start
before=$(ids)
for _ in 1 2 3 4 5 6 7 8 9 10; do
	patchbay_on node-a plugin reload kpr >"$PB_TMP/out" 2>&1 || not_ok "reload: $(cat "$PB_TMP/out")"
done
then_ok "endpointslice reloads too" patchbay_on node-a plugin reload endpointslice
then_is "the map of frontends is the same, entry by entry" "$(ids)" "$before"
traffic_stop
then_is "nothing was lost over 10 reloads of kpr and one of endpointslice" "$unanswered" 0

begin K55_restart
given "the same traffic"
traffic_start
when "the agent is killed and starts again"
agent_stop node-a KILL
then_is "services work without an agent" "$(answers $vip)" "web-1 web-2"
then_ok "it starts" agent_start node-a
then_within "the services are known again" 10 "in_list '.name == \"web\" and .state == \"ok\" and .backends == 2'"
then_is "and work" "$(answers $vip)" "web-1 web-2"
then_is "the map of frontends is the same, entry by entry" "$(ids)" "$before"
traffic_stop
then_is "nothing was lost" "$unanswered" 0
when "a service was deleted while no agent ran"
agent_stop node-a
rm "$manifests/svc-none.yaml"
then_ok "the agent starts" agent_start node-a
then_within "its frontends go" 10 "! ids | grep -qF 10.96.0.99 && not_in_list '.name == \"none\"'"

begin K61_churn
given "the same traffic"
traffic_start
when "an endpoint comes and goes 40 times"
for ((i = 0; i < 40; i++)); do
	if [ $((i % 2)) = 0 ]; then
		slice web-v4-twin web IPv4 "$http_port" "$(pod_ip4 web-1)"
	else
		slice web-v4-twin web IPv4 "$http_port" "$(pod_ip4 web-1)" "$(pod_ip4 web-2)"
	fi
	now=$(objects EndpointSlice)
	[ -n "$now" ] || not_ok "the agent answers"
done
traffic_stop
then_is "no connection failed" "$unanswered" 0
then_within "the last change is in force" 10 "in_list '.frontend == \"10.96.0.10:80\" and .backends == 2'"

begin K28_all_kinds_in_the_kernels_maps
write svc-lb <<-END
	apiVersion: v1
	kind: Service
	metadata: {name: lb, namespace: shop, uid: lb}
	spec:
	  type: LoadBalancer
	  clusterIP: 10.96.0.70
	  clusterIPs: [10.96.0.70]
	  externalTrafficPolicy: Local
	  loadBalancerSourceRanges: [192.0.2.0/24, "2001:db8::/32"]
	  ports: [{name: http, protocol: TCP, port: 80, nodePort: 30070}]
	status: {loadBalancer: {ingress: [{ip: 203.0.113.70}]}}
END
slice lb-v4 lb IPv4 "$http_port" "$(pod_ip4 web-1)"
rows_of() { patchbay_on node-a service list shop --type "$1" -o json | jq -r '.[] | select(.name == "lb")'; }
then_within "the load balancer address has an entry for clients of the node" 10 \
	"in_list '.name == \"lb\" and .type == \"LoadBalancer\" and .scope == \"internal\" and .backends == 1'"
then_is "and one for packets from outside" \
	"$(rows_of LoadBalancer | jq -r .scope | sort | xargs)" "external internal"
then_is "--type lists one kind" "$(rows_of NodePort | jq -r .type | sort -u)" NodePort
then_is "the ranges are in the tries" \
	"$(patchbay_on node-a map dump kpr/kpr_ranges4 -o json | jq length) $(patchbay_on node-a map dump kpr/kpr_ranges6 -o json | jq length)" "1 1"
when "the agent is killed and starts again"
agent_stop node-a KILL
then_ok "it starts" agent_start node-a
then_within "everything is known again" 10 "in_list '.name == \"lb\" and .state == \"ok\"'"
then_is "the ranges are those from before" \
	"$(patchbay_on node-a map dump kpr/kpr_ranges4 -o json | jq length)" 1
when "the Service goes"
rm "$manifests/svc-lb.yaml" "$manifests/lb-v4.yaml"
then_within "nothing of it is listed" 10 "not_in_list '.name == \"lb\"'"

begin services_max_grows_without_a_lost_connection
given "the same traffic"
traffic_start
before=$(ids)
config=$(agent_dir node-a)/patchbay.yaml
when "services_max and backends_max are raised and the configuration is read again"
cp "$config" "$PB_TMP/config"
sed -i 's/kpr: {/kpr: {services_max: 70000, backends_max: 270000, /' "$config"
kill -HUP "${agent_pid[node-a]}"
services_max() {
	patchbay_on node-a map list -o json |
		jq '[.[] | select(.name == "kpr/kpr_services") | .max_entries] | max'
}
then_within "the map has more room" 10 "[ \"\$(services_max)\" = 70000 ]"
then_is "and every entry" "$(ids)" "$before"
when "the agent is restarted with the smaller numbers"
cp "$PB_TMP/config" "$config"
agent_stop node-a
then_ok "it starts" agent_start node-a
then_within "the services are known again" 10 "in_list '.name == \"web\" and .state == \"ok\" and .backends == 2'"
then_is "the map keeps its room" "$(services_max)" 70000
traffic_stop
then_is "nothing was lost" "$unanswered" 0

begin end
then_is "no packet or call met a hole" "$(patchbay_on node-a status -o json | jq .datapath.missed)" 0
agent_stop node-a
then_ok "cleanup" in_net node-a "$PB_PATCHBAYD" --cleanup -c "$(agent_dir node-a)/patchbay.yaml"
then_is "leaves nothing" "$(agent_leftovers node-a)" ""
done_testing
