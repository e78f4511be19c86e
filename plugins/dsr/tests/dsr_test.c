/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin's user side on the fake host: configuration, what it declares, what it reports. */
#include <criterion/criterion.h>

#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>

#include <patchbay/testing.h>

#include "../dsr.h"

static struct pb_fake *fake;

static void make(const char *config)
{
	fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, config, "node-a");
	cr_assert_not_null(fake);
	pb_fake_map_define(fake, "dsr_stats", BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(uint32_t),
			   sizeof(struct dsr_stats), 1);
}

static void teardown(void)
{
	pb_fake_free(fake);
	fake = NULL;
}

TestSuite(dsr, .fini = teardown);

static uint32_t constant(const char *name)
{
	size_t len = 0;
	const void *value = pb_fake_const(fake, "dsr", name, &len);
	uint32_t number = 0;

	cr_assert(value && len == sizeof(number), "%s", name);
	memcpy(&number, value, sizeof(number));
	return number;
}

static void expect_loads(const char *config, uint32_t mode, uint32_t strip, uint32_t any)
{
	make(config);
	cr_assert_eq(pb_fake_load(fake), 0, "%s: %s", config, pb_fake_failure(fake));
	cr_expect_eq(constant("dsr_mode"), mode, "%s", config);
	cr_expect_eq(constant("dsr_dispatch"), DSR_OPT, "%s", config);
	cr_expect_eq(constant("dsr_strip"), strip, "%s", config);
	cr_expect_eq(constant("dsr_any_address"), any, "%s", config);
	teardown();
}

static void expect_refused(const char *config, const char *why)
{
	make(config);
	cr_expect_eq(pb_fake_load(fake), -EINVAL, "%s", config);
	cr_expect_str_eq(pb_fake_failure(fake), why, "%s", config);
	teardown();
}

Test(dsr, the_configuration_becomes_constants_of_the_programs)
{
	expect_loads("{}", DSR_MODE_DSR, 1, 0);
	expect_loads("{\"mode\":\"dsr\",\"dispatch\":\"opt\"}", DSR_MODE_DSR, 1, 0);
	expect_loads("{\"mode\":\"hybrid\",\"strip\":false}", DSR_MODE_HYBRID, 0, 0);
	expect_loads("{\"mode\":\"snat\",\"node_addresses\":\"any\"}", DSR_MODE_SNAT, 1, 1);
	expect_loads("{\"tunnel\":\"disabled\"}", DSR_MODE_DSR, 1, 0);
	make("{\"dispatch\":\"geneve\"}");
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
	cr_expect_eq(constant("dsr_dispatch"), DSR_GENEVE);
	cr_expect_eq(pb_fake_reconfigure(fake, "{\"dispatch\":\"ipip\"}"), 0);
	cr_expect_eq(constant("dsr_dispatch"), DSR_IPIP);
}

Test(dsr, bad_values_are_refused_with_a_list_of_the_good_ones)
{
	expect_refused("{\"mode\":\"DSR\"}", "mode: must be one of dsr, hybrid, snat");
	expect_refused("{\"mode\":1}", "mode: must be one of dsr, hybrid, snat");
	expect_refused("{\"dispatch\":\"gre\"}", "dispatch: must be one of opt, geneve, ipip");
	expect_refused("{\"strip\":\"yes\"}", "strip: must be true or false");
	expect_refused("{\"node_addresses\":\"all\"}", "node_addresses: must be one of known, any");
	expect_refused("{\"tunnel\":\"ipip\"}", "tunnel: must be one of disabled, vxlan, geneve");
	expect_refused("{\"ttl\":1}", "ttl: no such key; known are mode, dispatch, strip, "
				      "node_addresses and tunnel");
	expect_refused("[]", "the configuration must be a mapping");
}

Test(dsr, D28_a_tunnel_and_dsr_refuse_to_start)
{
	expect_refused("{\"mode\":\"dsr\",\"tunnel\":\"vxlan\"}",
		       "mode: dsr with dispatch: opt needs native routing and can't be combined "
		       "with tunnel: vxlan; use mode: snat or tunnel: disabled");
	expect_loads("{\"mode\":\"snat\",\"tunnel\":\"vxlan\"}", DSR_MODE_SNAT, 1, 0);
}

Test(dsr, D29_a_tunnel_and_hybrid_refuse_to_start)
{
	expect_refused("{\"tunnel\":\"geneve\",\"mode\":\"hybrid\"}",
		       "mode: hybrid with dispatch: opt needs native routing and can't be combined "
		       "with tunnel: geneve; use mode: snat or tunnel: disabled");
}

Test(dsr, its_slots_stand_between_those_of_kpr)
{
	const struct pb_slot *slot;

	make("{}");
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
	slot = pb_fake_slot(fake, PB_HOOK_DEV_INGRESS, "dsr");
	cr_assert_not_null(slot);
	cr_expect_eq(slot->band, PB_BAND_SERVICE);
	cr_expect_str_eq(slot->after, "kpr");
	cr_expect_str_eq(slot->before, "kpr-nat");
	slot = pb_fake_slot(fake, PB_HOOK_DEV_INGRESS, "dsr-in");
	cr_assert_not_null(slot);
	cr_expect_eq(slot->band, PB_BAND_DECAP);
	cr_expect_not_null(pb_fake_slot(fake, PB_HOOK_POD_EGRESS, "dsr"));
	cr_expect_str_eq(pb_manifest_v1.requires, "kpr");
}

Test(dsr, a_new_configuration_takes_effect_without_a_reload_and_a_bad_one_changes_nothing)
{
	make("{}");
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
	cr_expect_eq(pb_fake_reconfigure(fake, "{\"mode\":\"hybrid\"}"), 0);
	cr_expect_eq(constant("dsr_mode"), DSR_MODE_HYBRID);
	cr_expect_eq(pb_fake_reconfigure(fake, "{\"mode\":\"dsr\",\"tunnel\":\"vxlan\"}"), -EINVAL);
	cr_expect_eq(constant("dsr_mode"), DSR_MODE_HYBRID);
}

Test(dsr, status_and_metrics_show_the_sum_over_all_CPUs)
{
	const struct dsr_stats stats[PB_FAKE_CPUS] = {{.sent = 3, .untrusted = 1, .kept = 7},
						      {.sent = 4, .no_space = 2}};
	uint32_t zero = 0;
	const char *arg = "x";
	char *json = NULL;

	make("{\"mode\":\"hybrid\"}");
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
	cr_assert_eq(pb_fake_map_put(fake, "dsr_stats", &zero, stats), 0);
	cr_assert_eq(pb_fake_command(fake, "dsr status", NULL, 0, &json), 0);
	cr_expect_str_eq(json, "{\"mode\":\"hybrid\",\"dispatch\":\"opt\",\"strip\":true,"
			       "\"node_addresses\":\"known\",\"sent\":7,\"arrived\":0,"
			       "\"no_space\":2,\"mtu\":0,\"untrusted\":1,\"nat_missing\":0,"
			       "\"conflicts\":0,\"moved\":0,\"kept\":7}");
	free(json);
	cr_expect_eq(pb_fake_command(fake, "dsr status", &arg, 1, &json), -EINVAL);
	pb_fake_advance_ms(fake, 1000);
	cr_expect_eq(pb_fake_metric(fake, "sent"), 7);
	cr_expect_eq(pb_fake_metric(fake, "untrusted"), 1);
	cr_expect_eq(pb_fake_metric(fake, "no_space"), 2);
}
