/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding Kubernetes objects: what each field means, and what is left out or refused. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <kube/decode.h>
#include <kube/kube.h>

static struct pb_kube_meta *decode(const char *json, unsigned *ret_warns)
{
	struct pb_kube_meta *object = NULL;
	struct pb_err err = {0};
	int rc = pb_kube_decode(json, strlen(json), &object, ret_warns, &err);

	cr_assert_eq(rc, 0, "%s: %s", json, err.text);
	return object;
}

static void refused(const char *json, int code, const char *text)
{
	struct pb_kube_meta *object = NULL;
	struct pb_err err = {0};

	cr_assert_eq(pb_kube_decode(json, strlen(json), &object, NULL, &err), code, "%s", json);
	cr_assert_not_null(strstr(err.text, text), "%s: %s", json, err.text);
}

static bool is_v4(const union pb_addr *addr, const char *text)
{
	struct in_addr v4;

	inet_pton(AF_INET, text, &v4);
	return addr->v4 == v4.s_addr;
}

#define SLICE(body_)                                                                               \
	"{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"metadata\":{"        \
	"\"name\":\"s-1\",\"namespace\":\"shop\",\"labels\":{\"kubernetes.io/service-name\":"      \
	"\"s\"}},\"addressType\":\"IPv4\"," body_ "}"
#define SERVICE(spec_)                                                                             \
	"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\"},\"spec\":"    \
	"{" spec_ "}}"

static const struct pb_kube_endpointslice *slice_of(struct pb_kube_meta *meta)
{
	cr_assert_eq(meta->kind, PB_KUBE_ENDPOINTSLICE);
	cr_assert_eq(meta->size, sizeof(struct pb_kube_endpointslice));
	return (const void *)meta;
}

static const struct pb_kube_service *service_of(struct pb_kube_meta *meta)
{
	cr_assert_eq(meta->kind, PB_KUBE_SERVICE);
	return (const void *)meta;
}

Test(kube_decode, E5_E6_missing_conditions_get_their_meaning)
{
	static const struct {
		const char *conditions;
		uint32_t bits;
	} cases[] = {
		{"{}", PB_ENDPOINT_READY | PB_ENDPOINT_SERVING},
		{"null", PB_ENDPOINT_READY | PB_ENDPOINT_SERVING},
		{"{\"ready\":null}", PB_ENDPOINT_READY | PB_ENDPOINT_SERVING},
		{"{\"ready\":false}", 0},
		{"{\"ready\":false,\"serving\":true,\"terminating\":true}",
		 PB_ENDPOINT_SERVING | PB_ENDPOINT_TERMINATING},
		{"{\"ready\":true,\"serving\":true,\"terminating\":true}",
		 PB_ENDPOINT_READY | PB_ENDPOINT_SERVING | PB_ENDPOINT_TERMINATING},
		{"{\"ready\":false,\"terminating\":true}", PB_ENDPOINT_TERMINATING},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		PB_FREE char *json = pb_sprintf(
			SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],\"conditions\":%s}]"),
			cases[i].conditions);
		struct pb_kube_meta *meta = decode(json, NULL);

		cr_assert_eq(slice_of(meta)->endpoints[0].conditions, cases[i].bits, "%s",
			     cases[i].conditions);
		pb_kube_object_free(meta);
	}
}

Test(kube_decode, E8_E9_E10_E11_ports_of_a_slice)
{
	unsigned warns;
	struct pb_kube_meta *meta =
		decode(SLICE("\"ports\":[{\"name\":null,\"port\":80},{\"name\":\"all\","
			     "\"port\":null,\"protocol\":\"UDP\"},{\"name\":\"odd\",\"port\":1,"
			     "\"protocol\":\"FOO\"},{\"port\":70000}]"),
		       &warns);
	const struct pb_kube_endpointslice *slice = slice_of(meta);

	cr_assert_eq(slice->n_ports, 3, "a port out of range is left out");
	cr_assert_str_eq(slice->ports[0].name, "");
	cr_assert_eq(slice->ports[0].protocol, IPPROTO_TCP);
	cr_assert_eq(slice->ports[1].port, 0);
	cr_assert_eq(slice->ports[1].protocol, IPPROTO_UDP);
	cr_assert_eq(slice->ports[2].protocol, 0);
	cr_assert_eq(warns, 2, "the unknown protocol and the port out of range");
	pb_kube_object_free(meta);
}

Test(kube_decode, E14_E15_an_address_has_one_spelling)
{
	static const char *const bad[] = {"10.0.0.1/32",    "::ffff:10.0.0.1", "010.0.0.1",
					  "10.0.0",	    "10.0.0.256",      "",
					  " 10.0.0.1",	    "fe80::1%eth0",    "2001:db8::1",
					  "10.0.0.1\\u0000"};

	for (size_t i = 0; i < PB_ARRAY_LEN(bad); i++) {
		PB_FREE char *json =
			pb_sprintf(SLICE("\"endpoints\":[{\"addresses\":[\"%s\"]},{\"addresses\":"
					 "[\"10.0.0.2\"]}]"),
				   bad[i]);
		unsigned warns;
		struct pb_kube_meta *meta = decode(json, &warns);

		cr_assert_eq(slice_of(meta)->n_endpoints, 1, "\"%s\" must be left out", bad[i]);
		cr_assert(is_v4(&slice_of(meta)->endpoints[0].addr, "10.0.0.2"));
		cr_assert_eq(warns, 1);
		pb_kube_object_free(meta);
	}
}

Test(kube_decode, E14_the_warning_names_object_field_and_cause)
{
	const char *json = SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1/32\"]}]");
	struct pb_kube_meta *meta;
	struct pb_err err = {0};
	unsigned warns;

	cr_assert_eq(pb_kube_decode(json, strlen(json), &meta, &warns, &err), 0);
	cr_assert_str_eq(err.text, "EndpointSlice shop/s-1: endpoints.addresses: \"10.0.0.1/32\" "
				   "has a prefix length: only an address may stand here");
	pb_kube_object_free(meta);
}

Test(kube_decode, E29_E30_the_first_address_counts_and_none_is_left_out)
{
	unsigned warns;
	struct pb_kube_meta *meta =
		decode(SLICE("\"endpoints\":[{\"addresses\":[]},{\"addresses\":[\"10.0.0.9\"]},"
			     "{\"addresses\":[\"10.0.0.1\",\"10.0.0.2\",\"x\",\"10.0.0.3\"]},{}]"),
		       &warns);
	const struct pb_kube_endpointslice *slice = slice_of(meta);

	cr_assert_eq(slice->n_endpoints, 2);
	cr_assert(is_v4(&slice->endpoints[1].addr, "10.0.0.1"));
	/* The others are kept beside, for who wants them. */
	cr_assert_eq(slice->n_further, 2);
	cr_assert(is_v4(&slice->further[0].addr, "10.0.0.2"));
	cr_assert(is_v4(&slice->further[1].addr, "10.0.0.3"));
	cr_assert_eq(slice->further[0].endpoint, 1);
	cr_assert_eq(slice->further[1].endpoint, 1);
	cr_assert_eq(warns, 3);
	pb_kube_object_free(meta);
}

Test(kube_decode, E16_E17_E22_slices_that_say_nothing)
{
	struct pb_kube_meta *meta = decode(
		"{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"metadata\":"
		"{\"name\":\"x\"},\"addressType\":\"FQDN\",\"endpoints\":[{\"addresses\":"
		"[\"example.org\"]}]}",
		NULL);

	cr_assert_str_eq(slice_of(meta)->service, "");
	cr_assert_eq(slice_of(meta)->family, 0);
	cr_assert_eq(slice_of(meta)->n_endpoints, 0);
	pb_kube_object_free(meta);
	refused("{\"apiVersion\":\"discovery.k8s.io/v1alpha1\",\"kind\":\"EndpointSlice\","
		"\"metadata\":{\"name\":\"x\"},\"addressType\":\"IP\"}",
		-ENOTSUP, "EndpointSlice of discovery.k8s.io/v1alpha1");
}

Test(kube_decode, E28_E31_v1beta1_reads_node_and_zone_from_topology)
{
	struct pb_kube_meta *meta =
		decode("{\"apiVersion\":\"discovery.k8s.io/v1beta1\",\"kind\":\"EndpointSlice\","
		       "\"metadata\":{\"name\":\"x\"},\"addressType\":\"IPv4\",\"endpoints\":["
		       "{\"addresses\":[\"10.0.0.1\"],\"topology\":{\"kubernetes.io/hostname\":"
		       "\"node-a\",\"topology.kubernetes.io/zone\":\"z1\"}},"
		       "{\"addresses\":[\"10.0.0.2\"]}]}",
		       NULL);
	const struct pb_kube_endpointslice *slice = slice_of(meta);

	cr_assert_str_eq(slice->endpoints[0].node, "node-a");
	cr_assert_str_eq(slice->endpoints[0].zone, "z1");
	cr_assert_eq(slice->endpoints[0].conditions & PB_ENDPOINT_TERMINATING, 0);
	cr_assert_str_eq(slice->endpoints[1].node, "", "no node: local to none");
	pb_kube_object_free(meta);
}

Test(kube_decode, strings_of_endpoints_are_shared_and_given_back)
{
	const char *json = SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],\"nodeName\":"
				 "\"n\",\"zone\":\"z\",\"hints\":{\"forZones\":[{\"name\":\"a\"},"
				 "{\"name\":\"b\"}]}},{\"addresses\":[\"10.0.0.2\"],"
				 "\"nodeName\":\"n\"}]");
	struct pb_kube_meta *one = decode(json, NULL), *two = decode(json, NULL);

	cr_assert_str_eq(slice_of(one)->endpoints[0].hints, "a,b");
	cr_assert_eq(slice_of(one)->endpoints[0].node, slice_of(two)->endpoints[1].node);
	cr_assert_eq(pb_kube_intern_count(), 3);
	pb_kube_object_free(one);
	cr_assert_str_eq(slice_of(two)->endpoints[0].zone, "z");
	pb_kube_object_free(two);
	cr_assert_eq(pb_kube_intern_count(), 0);
}

Test(kube_decode, a_refused_object_gives_its_strings_back)
{
	refused(SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],\"nodeName\":\"n\"},"
		      "{\"addresses\":[\"10.0.0.1\"],\"nodeName\":7}]"),
		-EINVAL, "EndpointSlice shop/s-1: endpoints.nodeName is not a string");
	cr_assert_eq(pb_kube_intern_count(), 0);
}

Test(kube_decode, E24_subsets_stay_apart)
{
	struct pb_kube_meta *meta =
		decode("{\"apiVersion\":\"v1\",\"kind\":\"Endpoints\",\"metadata\":{\"name\":\"e\","
		       "\"annotations\":{\"endpoints.kubernetes.io/over-capacity\":\"truncated\"}},"
		       "\"subsets\":[{\"addresses\":[{\"ip\":\"10.0.0.1\",\"nodeName\":\"n\"}],"
		       "\"notReadyAddresses\":[{\"ip\":\"10.0.0.9\"}],\"ports\":[{\"port\":80}]},"
		       "{\"addresses\":[{\"ip\":\"2001:db8::1\"}],\"ports\":[{\"name\":\"b\","
		       "\"port\":81}]},{\"notReadyAddresses\":[{\"ip\":\"10.0.0.8\"}],"
		       "\"ports\":[{\"port\":1}]}]}",
		       NULL);
	const struct pb_kube_endpoints *endpoints = (const void *)meta;

	cr_assert_eq(endpoints->n_subsets, 2, "a subset with nobody ready is left out");
	cr_assert_eq(endpoints->subsets[0].n_endpoints, 1);
	cr_assert_eq(endpoints->subsets[0].families[0], 4);
	cr_assert_eq(endpoints->subsets[1].families[0], 6);
	cr_assert_eq(endpoints->subsets[1].ports[0].port, 81);
	cr_assert_str_eq(endpoints->subsets[1].ports[0].name, "b");
	cr_assert_eq(endpoints->truncated, 1, "E25");
	pb_kube_object_free(meta);
}

Test(kube_decode, a_service_with_everything)
{
	unsigned warns;
	struct pb_kube_meta *meta = decode(
		"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"web\","
		"\"namespace\":\"shop\",\"uid\":\"u1\",\"resourceVersion\":\"7\",\"labels\":"
		"{\"b\":\"2\",\"a\":\"1\"}},\"spec\":{\"type\":\"LoadBalancer\",\"clusterIP\":"
		"\"10.96.0.1\",\"clusterIPs\":[\"10.96.0.1\",\"2001:db8::1\"],\"externalIPs\":"
		"[\"192.0.2.1\",\"bad\"],\"ports\":[{\"name\":\"http\",\"port\":80,\"nodePort\":"
		"30080,\"appProtocol\":\"http\"},{\"name\":\"dns\",\"port\":53,\"protocol\":"
		"\"UDP\"},{\"port\":0},{\"port\":1,\"protocol\":\"X\"}],\"selector\":{\"app\":"
		"\"web\"},\"sessionAffinity\":\"ClientIP\",\"externalTrafficPolicy\":\"Local\","
		"\"internalTrafficPolicy\":\"Local\",\"healthCheckNodePort\":32000,"
		"\"loadBalancerSourceRanges\":[\" 192.0.2.77/24 \",\"nonsense\"]},\"status\":"
		"{\"loadBalancer\":{\"ingress\":[{\"ip\":\"203.0.113.1\"},{\"hostname\":\"h\"},"
		"{\"ip\":\"203.0.113.2\",\"ipMode\":\"Proxy\"}]}}}",
		&warns);
	const struct pb_kube_service *service = service_of(meta);

	cr_assert_str_eq(service->meta.ns, "shop");
	cr_assert_str_eq(service->meta.version, "7");
	cr_assert_str_eq(service->meta.labels[0].key, "a", "labels are sorted");
	cr_assert_eq(service->type, PB_SERVICE_LOAD_BALANCER);
	cr_assert_eq(service->n_cluster_ips, 2);
	cr_assert_eq(service->cluster_ips[1].family, 6);
	cr_assert_eq(service->n_external_ips, 1);
	cr_assert_eq(service->n_ports, 2);
	cr_assert_eq(service->ports[0].node_port, 30080);
	cr_assert_str_eq(service->ports[0].app_protocol, "http");
	cr_assert_eq(service->ports[1].protocol, IPPROTO_UDP);
	cr_assert_eq(service->n_ingress, 2, "a host name is nothing to program");
	cr_assert_eq(service->ingress[0].proxied, 0);
	cr_assert_eq(service->ingress[1].proxied, 1);
	cr_assert_eq(service->n_source_ranges, 1);
	cr_assert(is_v4(&service->source_ranges[0].addr, "192.0.2.0"), "host bits are cleared");
	cr_assert_eq(service->source_ranges[0].bits, 24);
	cr_assert_eq(service->affinity_seconds, 10800);
	cr_assert_eq(service->health_check_node_port, 32000);
	cr_assert_eq(service->flags, PB_SERVICE_EXTERNAL_LOCAL | PB_SERVICE_INTERNAL_LOCAL |
					     PB_SERVICE_AFFINITY_CLIENT_IP |
					     PB_SERVICE_SOURCE_RANGES_GIVEN);
	cr_assert_eq(warns, 4, "one external IP, two ports, one range");
	pb_kube_object_free(meta);
}

Test(kube_decode, what_a_service_may_leave_out)
{
	static const struct {
		const char *json;
		uint32_t flags;
		uint32_t n_ips;
	} cases[] = {
		{SERVICE("\"clusterIP\":\"10.96.0.1\""), PB_SERVICE_NO_SELECTOR, 1},
		{SERVICE("\"clusterIP\":\"None\""), PB_SERVICE_HEADLESS | PB_SERVICE_NO_SELECTOR,
		 0},
		{SERVICE("\"clusterIPs\":[\"None\"],\"selector\":{\"a\":\"b\"}"),
		 PB_SERVICE_HEADLESS, 0},
		{SERVICE("\"type\":\"ExternalName\",\"selector\":{\"a\":\"b\"}"),
		 PB_SERVICE_HEADLESS, 0},
		{SERVICE("\"clusterIP\":\"10.96.0.1\",\"selector\":{\"a\":\"b\"},"
			 "\"loadBalancerSourceRanges\":[\"x\"]"),
		 PB_SERVICE_SOURCE_RANGES_GIVEN, 1},
		{SERVICE("\"clusterIP\":\"10.96.0.1\",\"selector\":{\"a\":\"b\"},"
			 "\"loadBalancerSourceRanges\":[],\"publishNotReadyAddresses\":true"),
		 PB_SERVICE_PUBLISH_NOT_READY, 1},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_kube_meta *meta = decode(cases[i].json, NULL);

		cr_assert_eq(service_of(meta)->flags, cases[i].flags, "%s", cases[i].json);
		cr_assert_eq(service_of(meta)->n_cluster_ips, cases[i].n_ips);
		cr_assert_str_eq(meta->ns, "default");
		cr_assert_str_eq(meta->uid, "");
		pb_kube_object_free(meta);
	}
}

Test(kube_decode, objects_that_are_refused_say_why)
{
	static const struct {
		const char *json;
		int code;
		const char *text;
	} cases[] = {
		{"", -EINVAL, "line 1, column 1: not valid JSON"},
		{"{\"a\":\n[1,]}", -EINVAL, "line 2, column 4: not valid JSON: a value was"},
		{"{\"a\":a value}", -EINVAL, "a value was expected"},
		{"[]", -EINVAL, "not a JSON object"},
		{"{} x", -EINVAL, "more text follows"},
		{"{\"kind\":\"Secret\",\"apiVersion\":\"v1\"}", -ENOTSUP, "Secret of v1"},
		{"{\"kind\":\"Service\",\"apiVersion\":\"v1\"}", -EINVAL, "metadata.name"},
		{SERVICE("\"type\":\"Odd\""), -EINVAL, "Service default/web: spec.type"},
		{SERVICE("\"ports\":{}"), -EINVAL, "spec.ports is not a list"},
		{SERVICE("\"ports\":[{\"name\":80,\"port\":1}]"), -EINVAL, "spec.ports.name"},
		{"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\","
		 "\"labels\":{\"on\":true}}}",
		 -EINVAL, "the value of \"on\" is not a string: put it in double quotes"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		refused(cases[i].json, cases[i].code, cases[i].text);
}

Test(kube_decode, a_pod_with_ports_of_all_its_containers)
{
	struct pb_kube_meta *meta = decode(
		"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"p\",\"namespace\""
		":\"n\"},\"spec\":{\"nodeName\":\"node-a\",\"serviceAccountName\":\"sa\","
		"\"hostNetwork\":true,\"containers\":[{\"ports\":[{\"containerPort\":80,\"name\":"
		"\"http\",\"hostPort\":8080,\"hostIP\":\"192.0.2.1\"}]},{},{\"ports\":["
		"{\"containerPort\":53,\"protocol\":\"UDP\"}]}]},\"status\":{\"phase\":\"Running\","
		"\"podIP\":\"10.1.0.1\",\"podIPs\":[{\"ip\":\"10.1.0.1\"},{\"ip\":"
		"\"2001:db8::5\"}]}}",
		NULL);
	const struct pb_kube_pod *pod = (const void *)meta;

	cr_assert_str_eq(pod->node, "node-a");
	cr_assert_str_eq(pod->service_account, "sa");
	cr_assert_eq(pod->phase, PB_POD_RUNNING);
	cr_assert_eq(pod->flags, PB_POD_HOST_NETWORK);
	cr_assert_eq(pod->n_ips, 2);
	cr_assert_eq(pod->n_ports, 2);
	cr_assert_eq(pod->ports[0].host_port, 8080);
	cr_assert_eq(pod->ports[0].host_ip.family, 4);
	cr_assert_eq(pod->ports[1].protocol, IPPROTO_UDP);
	cr_assert_str_eq(pod->ports[1].name, "");
	pb_kube_object_free(meta);
}

Test(kube_decode, a_node_and_a_namespace_have_no_namespace)
{
	struct pb_kube_meta *meta = decode(
		"{\"kind\":\"Node\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"node-a\","
		"\"namespace\":\"x\",\"labels\":{\"topology.kubernetes.io/zone\":\"z\"}},\"spec\":"
		"{\"podCIDR\":\"10.1.0.0/24\",\"podCIDRs\":[\"10.1.0.0/24\",\"2001:db8::/64\"]},"
		"\"status\":{\"addresses\":[{\"type\":\"InternalIP\",\"address\":\"192.0.2.5\"},"
		"{\"type\":\"Hostname\",\"address\":\"node-a\"}]}}",
		NULL);
	const struct pb_kube_node *node = (const void *)meta;

	cr_assert_str_eq(meta->ns, "");
	cr_assert_str_eq(node->zone, "z");
	cr_assert_eq(node->n_addrs, 1);
	cr_assert_eq(node->addrs[0].type, PB_NODE_INTERNAL_IP);
	cr_assert_eq(node->n_pod_cidrs, 2);
	cr_assert_eq(node->pod_cidrs[1].bits, 64);
	pb_kube_object_free(meta);
	meta = decode("{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":"
		      "\"shop\",\"labels\":{\"k\":\"v\"}}}",
		      NULL);
	cr_assert_eq(meta->kind, PB_KUBE_NAMESPACE);
	cr_assert_str_eq(meta->labels[0].value, "v");
	pb_kube_object_free(meta);
}

Test(kube_decode, escapes_become_what_they_stand_for)
{
	struct pb_kube_meta *meta =
		decode("{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{\"n\\u0061me\":"
		       "\"shop\",\"labels\":{\"q\":\"\\\"\\\\\\/\\n\\u00e9\\ud83d\\ude00\",\"z\":"
		       "\"a\\u0000b\\ud800\"}}}",
		       NULL);

	cr_assert_str_eq(meta->name, "shop");
	cr_assert_str_eq(meta->labels[0].value, "\"\\/\n\xc3\xa9\xf0\x9f\x98\x80");
	cr_assert_str_eq(meta->labels[1].value, "a\xef\xbf\xbd"
						"b\xef\xbf\xbd");
	pb_kube_object_free(meta);
}

Test(kube_decode, of_a_member_given_twice_the_last_counts)
{
	struct pb_kube_meta *meta =
		decode("{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\","
		       "\"name\":\"b\",\"labels\":{\"k\":\"1\",\"k\":\"2\"}}}",
		       NULL);

	cr_assert_str_eq(meta->name, "b");
	cr_assert_eq(meta->n_labels, 1);
	cr_assert_str_eq(meta->labels[0].value, "2");
	pb_kube_object_free(meta);
}

Test(kube_decode, nesting_is_bounded)
{
	char json[4096] = "{\"a\":";

	memset(json + 5, '[', 2000);
	refused(json, -EINVAL, "nested too deeply");
}

Test(kube_decode, an_endpoint_costs_at_most_64_bytes)
{
	PB_BUF_FREE struct pb_buf json = {0};
	struct pb_kube_meta *meta;

	pb_buf_printf(&json, "{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\","
			     "\"metadata\":{\"name\":\"x\"},\"addressType\":\"IPv4\","
			     "\"endpoints\":[");
	for (int i = 0; i < 1000; i++)
		pb_buf_printf(&json, "%s{\"addresses\":[\"10.0.%d.%d\"],\"nodeName\":\"node-%d\"}",
			      i ? "," : "", i / 250, i % 250, i % 50);
	pb_buf_printf(&json, "]}");
	meta = decode(json.data, NULL);
	cr_assert_eq(slice_of(meta)->n_endpoints, 1000);
	cr_assert_leq(pb_kube_object_of(meta)->len, 64 * 1000);
	pb_kube_object_free(meta);
}

/* Strings are passed eight bytes at a time; an escape must be seen wherever it stands. */
Test(kube_decode, an_escape_is_seen_at_every_place_of_a_string)
{
	for (size_t len = 1; len < 40; len++) {
		for (size_t at = 0; at < len; at++) {
			char before[48] = "", after[48] = "", expected[48];
			PB_FREE char *json = NULL;
			struct pb_kube_meta *meta;

			memset(before, 'x', at);
			memset(after, 'y', len - at - 1);
			snprintf(expected, sizeof(expected), "%s\"%s", before, after);
			json = pb_sprintf(SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],"
						"\"nodeName\":\"%s\\\"%s\"}]"),
					  before, after);
			meta = decode(json, NULL);
			cr_assert_str_eq(slice_of(meta)->endpoints[0].node, expected);
			pb_kube_object_free(meta);
		}
	}
}

/* The check notes where the first members are; those behind them are found all the same. */
Test(kube_decode, an_object_may_have_any_number_of_members)
{
	for (unsigned n = 0; n < 40; n++) {
		PB_BUF_FREE struct pb_buf json = {0};
		struct pb_kube_meta *meta;

		pb_buf_printf(&json, "{");
		for (unsigned i = 0; i < n; i++)
			pb_buf_printf(&json, "\"m%u\":{\"kind\":\"Pod\"},", i);
		pb_buf_printf(&json, "%s",
			      &(SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"]},7]"))[1]);
		meta = decode(json.data, NULL);
		cr_assert_eq(slice_of(meta)->n_endpoints, 1, "behind %u members", n);
		pb_kube_object_free(meta);
	}
}

Test(kube_decode, equal_text_makes_equal_objects_and_no_other_does)
{
	static const char *const texts[] = {
		SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],\"nodeName\":\"a\"}]"),
		SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.1\"],\"nodeName\":\"b\"}]"),
		SLICE("\"endpoints\":[{\"addresses\":[\"10.0.0.2\"],\"nodeName\":\"a\"}]"),
		SLICE("\"ports\":[{\"name\":\"a\"}]"),
		SLICE("\"ports\":[{\"name\":\"b\"}]"),
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(texts); i++) {
		for (size_t j = 0; j < PB_ARRAY_LEN(texts); j++) {
			struct pb_kube_meta *a = decode(texts[i], NULL),
					    *b = decode(texts[j], NULL);

			cr_assert_eq(pb_kube_object_same(pb_kube_object_of(a),
							 pb_kube_object_of(b)),
				     i == j, "%zu and %zu", i, j);
			pb_kube_object_free(a);
			pb_kube_object_free(b);
		}
	}
}
