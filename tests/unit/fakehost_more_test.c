/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fake host offers since ABI 1.1, and the order of records, shown by a plugin that writes
 * down what it is told.
 */
#include <criterion/criterion.h>
#include <linux/bpf.h>

#include <base/base.h>
#include <patchbay/testing.h>

static char told[1024]; /* "+key=value" "-key" "S" */

static void tell(const char *fmt, ...)
{
	size_t len = strlen(told);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(told + len, sizeof(told) - len, fmt, ap);
	va_end(ap);
}

static const char *heard(void)
{
	static char copy[sizeof(told)];

	memcpy(copy, told, sizeof(copy));
	told[0] = '\0';
	return copy;
}

static void on_record(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	(void)ctx;
	(void)arg;
	if (r->kind == PB_RECORD_PUT)
		tell("+%s=%.*s ", r->key, (int)r->len, (const char *)r->value);
	else if (r->kind == PB_RECORD_DELETE)
		tell("-%s ", r->key);
	else
		tell("S ");
}

static int prepare(struct pb_ctx *ctx)
{
	return ctx->host->subscribe(ctx, "t", 1, on_record, NULL);
}

PB_PLUGIN("listener", "1.0.0", .prepare = prepare);

static void put(struct pb_fake *fake, const char *key, const char *value)
{
	cr_assert_eq(pb_fake_publish(fake, "t", 1, key, value, strlen(value)), 0);
}

static struct pb_fake *make_fake(void)
{
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_not_null(fake);
	return fake;
}

Test(fakehost_more, a_replay_goes_by_the_order_of_the_last_publication)
{
	struct pb_fake *fake = make_fake();

	put(fake, "a", "1");
	put(fake, "b", "1");
	put(fake, "gone", "1");
	put(fake, "a", "2");
	put(fake, "b", "1");
	cr_assert_eq(pb_fake_withdraw(fake, "t", "gone"), 0);
	cr_assert_eq(pb_fake_synced(fake, "t"), 0);
	cr_assert_eq(pb_fake_load(fake), 0);
	cr_expect_str_eq(heard(), "+a=2 +b=1 S ");
	pb_fake_free(fake);
}
