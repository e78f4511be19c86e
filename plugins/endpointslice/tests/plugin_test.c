/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole plugin on the fake host: what it watches, when it publishes, what it says.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <patchbay/testing.h>
#include <patchbay/topics/backends.h>

static struct pb_fake *fake;

static void start(const char *config)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, config, "node-a");
	cr_assert_not_null(fake);
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
}

static void teardown(void)
{
	pb_fake_free(fake);
	fake = NULL;
}

static const struct pb_slice_port ports[] = {
	{.name = "", .app_protocol = "", .port = 80, .protocol = IPPROTO_TCP}};
static const struct pb_endpoint_entry entries[] = {{.addr = {.bytes = {10, 0, 0, 1}},
						    .node = "node-a",
						    .zone = "",
						    .hints = "",
						    .conditions = PB_ENDPOINT_READY},
						   {.addr = {.bytes = {10, 0, 0, 2}},
						    .node = "",
						    .zone = "",
						    .hints = "",
						    .conditions = PB_ENDPOINT_READY}};
static const uint8_t families[] = {4, 4};

#define META(kind_, type_, ns_, name_)                                                             \
	{                                                                                          \
		.size = sizeof(type_), .kind = (kind_), .ns = (ns_), .name = (name_), .uid = "",   \
		.version = ""                                                                      \
	}

static struct pb_kube_endpointslice slice(const char *ns, const char *service, uint32_t n)
{
	return (struct pb_kube_endpointslice){.meta = META(PB_KUBE_ENDPOINTSLICE,
							   struct pb_kube_endpointslice, ns,
							   service),
					      .service = service,
					      .family = 4,
					      .n_ports = 1,
					      .n_endpoints = n,
					      .ports = ports,
					      .endpoints = entries};
}

static const struct pb_endpoints_subset subset = {
	.n_ports = 1, .n_endpoints = 2, .ports = ports, .endpoints = entries, .families = families};

static struct pb_kube_endpoints endpoints(const char *ns, const char *name)
{
	return (struct pb_kube_endpoints){.meta = META(PB_KUBE_ENDPOINTS, struct pb_kube_endpoints,
						       ns, name),
					  .n_subsets = 1,
					  .subsets = &subset};
}

static uint32_t published(const char *key)
{
	const struct pb_backends_head *h = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, key, NULL);

	return h ? h->n_backends : UINT32_MAX;
}

static bool topic_synced(void)
{
	return pb_fake_topic_synced(fake, PB_TOPIC_BACKENDS);
}

static void put(const void *object)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, object), 0);
}

static void gone(const void *object)
{
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, object), 0);
}

static void pass(uint64_t ms)
{
	pb_fake_advance_ms(fake, ms);
}

/* The first lists of Services and slices are in. */
static void slices_synced(const char *api_version)
{
	pb_fake_kube_version(fake, PB_KUBE_ENDPOINTSLICE, api_version);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTSLICE);
	pass(1);
}

static void endpoints_synced(void)
{
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	pass(1);
}

static bool endpoints_watched(void)
{
	return pb_fake_kube_watched(fake, PB_KUBE_ENDPOINTS);
}

static bool logged(const char *text)
{
	return strstr(pb_fake_log(fake), text) != NULL;
}

#define V1 "discovery.k8s.io/v1"
#define V1BETA1 "discovery.k8s.io/v1beta1"

/* All lists of a source that has no versions, as a manifest directory. */
static void synced(void)
{
	slices_synced("");
	endpoints_synced();
}

TestSuite(plugin, .fini = teardown);

Test(plugin, E36_nothing_is_published_before_all_lists_are_in_then_all_then_synced)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);

	start("{}");
	put(&s);
	slices_synced("");
	pass(2000);
	cr_assert_eq(pb_fake_topic_count(fake, PB_TOPIC_BACKENDS), 0);
	cr_assert_not(topic_synced());
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 1);
	cr_assert(topic_synced());
	cr_assert_eq(pb_fake_metric(fake, "services"), 1);
	cr_assert_eq(pb_fake_metric(fake, "parts"), 1);
	cr_assert_eq(pb_fake_metric(fake, "backends"), 1);
	cr_assert_eq(pb_fake_metric(fake, "publications"), 2);
}

Test(plugin, an_empty_cluster_is_synced_too)
{
	start("{}");
	synced();
	cr_assert(topic_synced());
}

Test(plugin, a_change_of_a_quiet_service_is_out_when_the_event_has_been_handled)
{
	struct pb_kube_endpointslice one = slice("ns", "web", 1);
	struct pb_kube_endpointslice two = slice("ns", "web", 2);

	start("{}");
	put(&one);
	synced();
	pass(1000);
	put(&two);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, E28_only_endpoints_of_this_node_are_local)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);
	const struct pb_backends *v;

	start("{}");
	put(&s);
	synced();
	v = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web/web", NULL);
	cr_assert_not_null(v);
	cr_assert(v->backend[0].flags & PB_BACKEND_LOCAL);
	cr_assert_not(v->backend[1].flags & PB_BACKEND_LOCAL);
}

/* ---- the decision table ---- */

Test(plugin, E23_enabled_false_never_asks_for_slices)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{\"enabled\":false}");
	cr_assert_not(pb_fake_kube_watched(fake, PB_KUBE_ENDPOINTSLICE));
	put(&e);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_not(pb_fake_kube_watched(fake, PB_KUBE_ENDPOINTSLICE));
	cr_assert_not_null(pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web/endpoints", NULL));
}

Test(plugin, E41_v1_slices_alone_and_no_request_for_endpoints)
{
	struct pb_kube_endpointslice kubernetes = slice("default", "kubernetes", 1);
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	put(&kubernetes);
	put(&s);
	slices_synced(V1);
	cr_assert_not(endpoints_watched());
	cr_assert_eq(published("ns/web"), 2);
	cr_assert(topic_synced());
}

Test(plugin, E42_v1_without_a_slice_of_default_kubernetes_falls_back_with_a_warning)
{
	struct pb_kube_endpointslice stale = slice("ns", "web", 1);
	struct pb_kube_endpoints kubernetes = endpoints("default", "kubernetes");
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	put(&stale);
	put(&kubernetes);
	put(&e);
	slices_synced(V1);
	cr_assert(endpoints_watched());
	cr_assert_not(topic_synced(), "nothing is published before the guard has looked");
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 2, "Endpoints for all");
	cr_assert(logged("warn: no EndpointSlice of default/kubernetes"));
	cr_assert(logged("enable the cluster's EndpointSlice controller"));
	cr_assert(topic_synced());
}

Test(plugin, E43_v1_without_default_kubernetes_at_all_reads_slices)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);

	start("{}");
	put(&s);
	slices_synced(V1);
	cr_assert(endpoints_watched());
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 1);
	cr_assert_not(endpoints_watched(), "looked at, and closed again");
	cr_assert(topic_synced());
}

Test(plugin, E44_v1beta1_reads_endpoints_of_services_without_slices)
{
	struct pb_kube_endpointslice kubernetes = slice("default", "kubernetes", 1);
	struct pb_kube_endpointslice s = slice("ns", "web", 1);
	struct pb_kube_endpoints same = endpoints("ns", "web");
	struct pb_kube_endpoints by_hand = endpoints("ns", "by-hand");

	start("{}");
	put(&kubernetes);
	put(&s);
	put(&same);
	put(&by_hand);
	slices_synced(V1BETA1);
	cr_assert_not(topic_synced());
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 1, "never both");
	cr_assert_eq(published("ns/by-hand"), 2);
	cr_assert_eq(pb_fake_metric(fake, "from_endpoints"), 1);
	cr_assert(endpoints_watched());
}

Test(plugin, E45_manifests_with_endpoints_only_work)
{
	struct pb_kube_endpoints kubernetes = endpoints("default", "kubernetes");
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	put(&kubernetes);
	put(&e);
	synced();
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_not(logged("warn:"));
}

Test(plugin, E46_without_slices_in_the_cluster_endpoints_are_read)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	put(&e);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	cr_assert(endpoints_watched());
	endpoints_synced();
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(pb_fake_metric(fake, "from_endpoints"), 1);
}

Test(plugin, E47_with_nothing_to_read_what_was_published_stays_and_the_log_says_why)
{
	struct pb_kube_endpointslice s = slice("default", "kubernetes", 1);

	start("{}");
	put(&s);
	slices_synced(V1);
	cr_assert_eq(published("default/kubernetes"), 1);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	gone(&s);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTS);
	pass(5000);
	cr_assert_eq(published("default/kubernetes"), 1);
	cr_assert(logged("error: nothing that may be read can be listed"));
	cr_assert(logged("list and watch endpointslices of discovery.k8s.io, or else endpoints"));
	cr_assert_eq(pb_fake_metric(fake, "no_source"), 1);
}

Test(plugin, E48_slices_that_appear_are_taken_over_without_a_gap)
{
	struct pb_kube_endpoints kubernetes = endpoints("default", "kubernetes");
	struct pb_kube_endpoints e = endpoints("ns", "web");
	struct pb_kube_endpoints lock = endpoints("kube-system", "leader-election");
	struct pb_kube_endpointslice kubernetes_slice = slice("default", "kubernetes", 2);
	struct pb_kube_endpointslice part = slice("ns", "web", 1);
	struct pb_kube_endpointslice whole = slice("ns", "web", 2);

	/* Given a cluster without slices, */
	lock.n_subsets = 0;
	start("{}");
	put(&kubernetes);
	put(&e);
	put(&lock);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	endpoints_synced();
	pass(1000);
	/* when it is upgraded and its controller begins to make them, */
	put(&kubernetes_slice);
	slices_synced(V1);
	pass(1000);
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(pb_fake_metric(fake, "from_endpoints"), 1);
	put(&part);
	pass(1000);
	cr_assert_eq(published("ns/web"), 2, "one backend less would be a loss");
	cr_assert(endpoints_watched());
	put(&whole);
	pass(1000);
	/* then every Service goes over when its slices are complete, and Endpoints are let go of.
	 */
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_not_null(pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web/web", NULL));
	cr_assert_null(pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web/endpoints", NULL));
	cr_assert_not(endpoints_watched());
	cr_assert_eq(pb_fake_timers(fake), 0, "nothing waits");
}

Test(plugin, E49_slices_that_vanish_are_replaced_by_endpoints_without_a_gap)
{
	struct pb_kube_endpointslice kubernetes = slice("default", "kubernetes", 1);
	struct pb_kube_endpointslice s = slice("ns", "web", 1);
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	put(&kubernetes);
	put(&s);
	put(&e);
	slices_synced(V1);
	pass(1000);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	gone(&s);
	gone(&kubernetes);
	pass(5000);
	cr_assert_eq(published("ns/web"), 1, "stays until the Endpoints are in");
	endpoints_synced();
	pass(1000);
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(published("default/kubernetes"), UINT32_MAX);
}

Test(plugin, E49_also_while_the_endpoints_of_a_former_time_are_being_forgotten)
{
	struct pb_kube_endpointslice kubernetes = slice("default", "kubernetes", 2);
	struct pb_kube_endpoints e = endpoints("default", "kubernetes");

	start("{}");
	put(&e);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	endpoints_synced();
	put(&kubernetes);
	/* Slices come, and go again before the watch on Endpoints has been closed. */
	pb_fake_kube_version(fake, PB_KUBE_ENDPOINTSLICE, V1);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTSLICE);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	gone(&kubernetes);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(published("default/kubernetes"), 2);
		pass(20);
	}
	cr_assert_not_null(
		pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "default/kubernetes/endpoints", NULL));
	cr_assert(endpoints_watched());
}

Test(plugin, E50_enabled_true_never_asks_for_endpoints)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);

	start("{\"enabled\":\"true\"}");
	put(&s);
	slices_synced(V1);
	cr_assert_not(endpoints_watched());
	cr_assert_eq(published("ns/web"), 1);
}

Test(plugin, E50_enabled_true_does_not_fall_back)
{
	start("{\"enabled\":true}");
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	pass(1000);
	cr_assert_not(endpoints_watched());
	cr_assert_not(topic_synced(), "nobody may take this for a cluster without backends");
	cr_assert(logged("error: "));
	cr_assert(logged("or set enabled: auto"));
	cr_assert_eq(pb_fake_metric(fake, "no_source"), 1);
}

Test(plugin, a_watch_that_can_not_be_opened_is_tried_again)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	put(&e);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	cr_assert_eq(pb_fake_fail(fake, "kube_watch_open", 0, -ENOMEM), 0);
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	cr_assert_not(endpoints_watched());
	pass(2000);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, E51_the_source_and_the_reason_are_shown)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");
	char *json = NULL;

	start("{}");
	put(&e);
	synced();
	cr_assert_eq(pb_fake_command(fake, "backends source", NULL, 0, &json), 0);
	cr_assert_not_null(
		strstr(json, "\"source\":\"EndpointSlices, Endpoints for Services without\""));
	cr_assert_not_null(strstr(json, "\"why\":\"the source has whatever was written\""));
	cr_assert_not_null(strstr(json, "\"services_from_endpoints\":1"));
	free(json);
}

/* ---- Endpoints ---- */

Test(plugin, E25_truncated_endpoints_are_warned_of_once_and_marked)
{
	struct pb_kube_endpoints one = endpoints("ns", "web");
	struct pb_kube_endpoints two = endpoints("ns", "web");
	const struct pb_backends_head *h;

	one.truncated = 1;
	two.truncated = 1;
	start("{}");
	put(&one);
	synced();
	cr_assert(logged("warn: Endpoints ns/web: the control plane left addresses out"));
	h = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web", NULL);
	cr_assert(h && h->flags & PB_BACKENDS_TRUNCATED);
	pb_fake_log_clear(fake);
	put(&two);
	pass(1000);
	cr_assert_not(logged("left addresses out"));
	one.truncated = 0;
	put(&one);
	pass(1000);
	h = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web", NULL);
	cr_assert(h && !(h->flags & PB_BACKENDS_TRUNCATED));
	put(&two);
	pass(1000);
	cr_assert(logged("left addresses out"));
}

Test(plugin, E12_an_ipv6_slice_on_a_node_without_ipv6_is_nothing_to_talk_about)
{
	struct pb_kube_endpointslice six = slice("ns", "web", 1);

	six.family = 6;
	start("{}");
	synced();
	pb_fake_log_clear(fake);
	put(&six);
	cr_assert_eq(published("ns/web"), 1);
	cr_assert_str_eq(pb_fake_log(fake), "");
}

static const struct {
	const char *config;
	uint32_t n;
} address_cases[] = {{"{}", 2}, {"{\"addresses\":\"first\"}", 2}, {"{\"addresses\":\"all\"}", 4}};

Test(plugin, E30_the_first_address_of_an_endpoint_or_all_of_them)
{
	static const struct pb_further_addr further[] = {{.addr = {.bytes = {10, 0, 0, 3}},
							  .endpoint = 0},
							 {.addr = {.bytes = {10, 0, 0, 4}},
							  .endpoint = 1}};
	struct pb_kube_endpointslice s = slice("ns", "web", 2);
	struct pb_kube_endpointslice other = slice("ns", "web", 1);

	s.further = further;
	s.n_further = 2;
	other.meta.name = "other";
	for (size_t i = 0; i < sizeof(address_cases) / sizeof(address_cases[0]); i++) {
		const struct pb_backends *v;

		start(address_cases[i].config);
		put(&s);
		put(&other); /* a second slice, so that the index of doubles sees them too */
		synced();
		cr_expect_eq(published("ns/web"), address_cases[i].n, "%s",
			     address_cases[i].config);
		v = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web/web", NULL);
		/* A further address shares the node and the conditions of its endpoint. */
		if (address_cases[i].n == 4)
			cr_expect(v && v->n == 3 && v->backend[1].flags & PB_BACKEND_LOCAL);
		teardown();
	}
}

Test(plugin, E38_a_name_that_makes_no_key_is_warned_of_once)
{
	struct pb_kube_endpointslice one = slice("ns", "web/x", 1);
	struct pb_kube_endpointslice two = slice("ns", "web/x", 2);

	start("{}");
	synced();
	put(&one);
	cr_assert(logged("warn: EndpointSlice ns/web/x: ignored"));
	pb_fake_log_clear(fake);
	put(&two);
	cr_assert_not(logged("ignored"));
}

/* ---- life ---- */

Test(plugin, a_service_that_is_gone_takes_its_empty_record_along)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);
	struct pb_kube_service svc = {
		.meta = META(PB_KUBE_SERVICE, struct pb_kube_service, "ns", "web")};

	start("{}");
	put(&svc);
	put(&s);
	synced();
	gone(&s);
	pass(1000);
	cr_assert_eq(published("ns/web"), 0);
	gone(&svc);
	pass(1000);
	cr_assert_eq(published("ns/web"), UINT32_MAX);
}

Test(plugin, a_reload_publishes_the_same_again)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	put(&s);
	synced();
	cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	pass(1000);
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(pb_fake_topic_count(fake, PB_TOPIC_BACKENDS), 2, "a part and a head");
	cr_assert_eq(pb_fake_timers(fake), 0, "nothing waits");
}

Test(plugin, a_reload_while_something_waits_leaves_no_timer_behind)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	synced();
	cr_assert_eq(pb_fake_fail(fake, "publish", 0, -ENOMEM), 0);
	put(&s);
	cr_assert_gt(pb_fake_timers(fake), 0, "it will be tried again");
	cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	cr_assert_null(strstr(pb_fake_log(fake), "behind after stop()"), "%s", pb_fake_log(fake));
}

Test(plugin, a_publication_that_fails_is_tried_again)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	synced();
	cr_assert_eq(pb_fake_fail(fake, "publish", 0, -ENOMEM), 0);
	put(&s);
	cr_assert_eq(published("ns/web"), UINT32_MAX);
	pass(2000);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, a_wrong_configuration_is_refused_with_its_key)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, "{\"enabled\":\"yes\"}", "node-a");
	cr_assert_eq(pb_fake_load(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake), "enabled: must be auto, true or false");
	pb_fake_config(fake, "{\"enable\":true}");
	cr_assert_eq(pb_fake_load(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake),
			 "enable: no such key; there are enabled and addresses");
	pb_fake_config(fake, "{\"addresses\":2}");
	cr_assert_eq(pb_fake_load(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake), "addresses: must be first or all");
}
