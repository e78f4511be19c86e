/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole plugin on the fake host: what it watches, when it publishes, what it says.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <netinet/in.h>
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
	const struct pb_backends *v = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, key, NULL);

	return v ? v->n : UINT32_MAX;
}

static void synced(void)
{
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTSLICE);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	pb_fake_advance_ms(fake, 1);
}

TestSuite(plugin, .fini = teardown);

Test(plugin, nothing_is_published_before_both_lists_are_in_then_all_then_synced)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTSLICE);
	pb_fake_advance_ms(fake, 2000);
	cr_assert_eq(pb_fake_topic_count(fake, PB_TOPIC_BACKENDS), 0);
	cr_assert_not(pb_fake_topic_synced(fake, PB_TOPIC_BACKENDS));
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	pb_fake_advance_ms(fake, 1);
	cr_assert_eq(published("ns/web"), 1);
	cr_assert(pb_fake_topic_synced(fake, PB_TOPIC_BACKENDS));
	cr_assert_eq(pb_fake_metric(fake, "services"), 1);
}

Test(plugin, an_empty_cluster_is_synced_too)
{
	start("{}");
	synced();
	cr_assert(pb_fake_topic_synced(fake, PB_TOPIC_BACKENDS));
}

Test(plugin, a_change_of_a_quiet_service_is_out_when_the_event_has_been_handled)
{
	struct pb_kube_endpointslice one = slice("ns", "web", 1);
	struct pb_kube_endpointslice two = slice("ns", "web", 2);

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &one.meta);
	synced();
	pb_fake_advance_ms(fake, 1000);
	pb_fake_kube(fake, PB_KUBE_PUT, &two.meta);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, E28_only_endpoints_of_this_node_are_local)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);
	const struct pb_backends *v;

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	synced();
	v = pb_fake_topic_get(fake, PB_TOPIC_BACKENDS, "ns/web", NULL);
	cr_assert_not_null(v);
	cr_assert(v->backend[0].flags & PB_BACKEND_LOCAL);
	cr_assert_not(v->backend[1].flags & PB_BACKEND_LOCAL);
}

Test(plugin, E23_enabled_false_never_asks_for_slices)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{\"enabled\":false}");
	cr_assert_not(pb_fake_kube_watched(fake, PB_KUBE_ENDPOINTSLICE));
	pb_fake_kube(fake, PB_KUBE_PUT, &e.meta);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	pb_fake_advance_ms(fake, 1);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, enabled_true_never_asks_for_endpoints)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);

	start("{\"enabled\":\"true\"}");
	cr_assert_not(pb_fake_kube_watched(fake, PB_KUBE_ENDPOINTS));
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTSLICE);
	pb_fake_advance_ms(fake, 1);
	cr_assert_eq(published("ns/web"), 1);
}

Test(plugin, without_slices_in_the_cluster_endpoints_are_read)
{
	struct pb_kube_endpoints e = endpoints("ns", "web");

	start("{}");
	pb_fake_kube_absent(fake, PB_KUBE_ENDPOINTSLICE);
	pb_fake_kube(fake, PB_KUBE_PUT, &e.meta);
	pb_fake_kube_synced(fake, PB_KUBE_ENDPOINTS);
	pb_fake_advance_ms(fake, 1);
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(pb_fake_metric(fake, "from_endpoints"), 1);
}

Test(plugin, a_cluster_whose_slice_controller_is_off_is_noticed)
{
	struct pb_kube_endpoints e = endpoints("default", "kubernetes");

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &e.meta);
	synced();
	cr_assert_eq(published("default/kubernetes"), 2);
	cr_assert_not_null(
		strstr(pb_fake_log(fake), "warn: no EndpointSlice of default/kubernetes"));
}

Test(plugin, E25_truncated_endpoints_are_warned_of_once)
{
	struct pb_kube_endpoints one = endpoints("ns", "web");
	struct pb_kube_endpoints two = endpoints("ns", "web");

	one.truncated = 1;
	two.truncated = 1;
	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &one.meta);
	synced();
	pb_fake_log_clear(fake);
	pb_fake_kube(fake, PB_KUBE_PUT, &two.meta);
	cr_assert_null(strstr(pb_fake_log(fake), "left addresses out"));
	one.truncated = 0;
	pb_fake_kube(fake, PB_KUBE_PUT, &one.meta);
	pb_fake_kube(fake, PB_KUBE_PUT, &two.meta);
	cr_assert_not_null(
		strstr(pb_fake_log(fake), "warn: Endpoints ns/web: the control plane left"));
}

Test(plugin, a_service_that_is_gone_takes_its_empty_record_along)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 1);
	struct pb_kube_service svc = {
		.meta = META(PB_KUBE_SERVICE, struct pb_kube_service, "ns", "web")};

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &svc.meta);
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	synced();
	pb_fake_kube(fake, PB_KUBE_DELETE, &s.meta);
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(published("ns/web"), 0);
	pb_fake_kube(fake, PB_KUBE_DELETE, &svc.meta);
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(published("ns/web"), UINT32_MAX);
}

Test(plugin, a_reload_publishes_the_same_again)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	synced();
	cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(published("ns/web"), 2);
	cr_assert_eq(pb_fake_topic_count(fake, PB_TOPIC_BACKENDS), 1);
	cr_assert_eq(pb_fake_timers(fake), 0, "nothing waits");
}

Test(plugin, a_publication_that_fails_is_tried_again)
{
	struct pb_kube_endpointslice s = slice("ns", "web", 2);

	start("{}");
	synced();
	cr_assert_eq(pb_fake_fail(fake, "publish", 0, -ENOMEM), 0);
	pb_fake_kube(fake, PB_KUBE_PUT, &s.meta);
	cr_assert_eq(published("ns/web"), UINT32_MAX);
	pb_fake_advance_ms(fake, 2000);
	cr_assert_eq(published("ns/web"), 2);
}

Test(plugin, a_wrong_configuration_is_refused_with_its_key)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, "{\"enabled\":\"yes\"}", "node-a");
	cr_assert_eq(pb_fake_load(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake), "enabled: must be auto, true or false");
	pb_fake_config(fake, "{\"enable\":true}");
	cr_assert_eq(pb_fake_load(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake), "enable: no such key; the only one is enabled");
}
