/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest plugin against the fake host. */
#include <criterion/criterion.h>

#include <errno.h>

#include <patchbay/testing.h>

Test(hello, it_counts_on_both_hooks_behind_every_verdict)
{
	static const uint32_t hooks[] = {PB_HOOK_DEV_INGRESS, PB_HOOK_POD_EGRESS};
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
	for (int i = 0; i < 2; i++) {
		const struct pb_slot *slot = pb_fake_slot(fake, hooks[i], "hello");

		cr_assert_not_null(slot);
		cr_expect_eq(slot->band, PB_BAND_OBSERVE);
		cr_expect_str_eq(slot->program, "hello_count");
	}
	cr_expect_null(pb_fake_slot(fake, PB_HOOK_DEV_EGRESS, "hello"));
	cr_expect_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	cr_expect_eq(pb_fake_unload(fake), 0);
	pb_fake_free(fake);
}

Test(hello, a_host_that_refuses_a_slot_keeps_it_from_loading)
{
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_eq(pb_fake_fail(fake, "slot", 1, -EINVAL), 0);
	cr_expect_eq(pb_fake_load(fake), -EINVAL);
	cr_expect_null(pb_fake_slot(fake, PB_HOOK_DEV_INGRESS, "hello"));
	pb_fake_free(fake);
}
