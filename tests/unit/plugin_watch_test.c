/* SPDX-License-Identifier: Apache-2.0 */
/* Watches that a plugin opens and closes, and ranges of addresses that it holds. */
#include <criterion/criterion.h>

#include <kube/source.h>
#include <plugin/private.h>

static struct pb_manager m;
static uv_loop_t loop;
static struct pb_sink *sink;
static struct pb_generation *gen;
static char told[256]; /* "+name" "-name" "S" */
static uint32_t watch_id;
static bool close_inside;

static struct pb_generation *generation(enum pb_gen_state state)
{
	struct pb_generation *g = pb_gen_new(&m, pb_plugin_get(&m, "one"), "{}");

	g->state = state;
	g->hold_data = g->hold_events = state != PB_GEN_LIVE;
	return g;
}

static void on_event(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;
	size_t len = strlen(told);

	(void)arg;
	if (event->kind == PB_KUBE_SYNCED)
		snprintf(told + len, sizeof(told) - len, "S ");
	else
		snprintf(told + len, sizeof(told) - len, "%c%s ",
			 event->kind == PB_KUBE_DELETE ? '-' : '+', meta->name);
	if (close_inside)
		cr_expect_eq(ctx->host->kube_watch_close(ctx, watch_id), 0);
}

static void ignore(void *arg, const struct pb_kube_event *event)
{
	(void)arg;
	(void)event;
}

static const char *heard(void)
{
	static char copy[sizeof(told)];

	while (uv_run(&loop, UV_RUN_NOWAIT))
		;
	memcpy(copy, told, sizeof(copy));
	told[0] = '\0';
	return copy;
}

static void put(const char *name)
{
	PB_FREE char *json = pb_sprintf("{\"metadata\":{\"name\":\"%s\"}}", name);
	struct pb_err err = {0};

	cr_assert_eq(pb_sink_put(sink, PB_KUBE_NAMESPACE, "v1", json, strlen(json), &err), 0, "%s",
		     err.text);
}

static int open_watch(struct pb_generation *g)
{
	return g->ctx.host->kube_watch_open(&g->ctx, PB_KUBE_NAMESPACE, on_event, NULL, &watch_id);
}

static int close_watch(void)
{
	return gen->ctx.host->kube_watch_close(&gen->ctx, watch_id);
}

static void set_up(void)
{
	struct pb_err err = {0};

	uv_loop_init(&loop);
	m.env.loop = &loop;
	/* No pump: nothing here publishes. */
	m.closing = true;
	cr_assert_eq(pb_kube_new(&loop, NULL, &m.env.kube, &err), 0);
	sink = (struct pb_sink *)m.env.kube;
	gen = generation(PB_GEN_LIVE);
}

static void tear_down(void)
{
	struct pb_plugin_entry *p, *tmp;

	pb_gen_free(gen);
	pb_kube_close(m.env.kube, NULL, NULL);
	LL_FOREACH_SAFE(m.plugins, p, tmp)
	{
		free(p->name);
		free(p);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left");
}

TestSuite(watch, .init = set_up, .fini = tear_down, .timeout = 30);

Test(watch, an_opened_watch_brings_what_is_there_and_what_follows)
{
	struct pb_kube_watch *other = NULL;
	uint32_t first;

	/* given a kind that somebody watches, so that the store knows objects */
	cr_assert_eq(pb_kube_watch(m.env.kube, PB_KUBE_NAMESPACE, ignore, NULL, &other), 0);
	pb_sink_list_begin(sink, PB_KUBE_NAMESPACE);
	put("a");
	pb_sink_list_end(sink, PB_KUBE_NAMESPACE);
	/* when */
	cr_assert_eq(open_watch(gen), 0);
	cr_expect_str_eq(told, "", "never inside the call");
	cr_expect_str_eq(heard(), "+a S ");
	put("b");
	cr_expect_str_eq(heard(), "+b ");
	first = watch_id;
	cr_expect_eq(close_watch(), 0);
	put("c");
	cr_expect_str_eq(heard(), "");
	cr_expect_eq(close_watch(), -ENOENT);
	/* then another one has another number */
	cr_assert_eq(open_watch(gen), 0);
	cr_expect_neq(watch_id, first);
	cr_expect_str_eq(heard(), "+a +b +c S ");
}

Test(watch, a_watch_may_be_closed_inside_its_callback)
{
	cr_assert_eq(open_watch(gen), 0);
	put("a");
	put("b");
	close_inside = true;
	cr_expect_str_eq(heard(), "+a ");
}

Test(watch, an_opened_watch_is_held_back_while_quiesced)
{
	cr_assert_eq(open_watch(gen), 0);
	gen->state = PB_GEN_QUIESCED;
	pb_gen_hold(gen);
	put("a");
	cr_expect_str_eq(heard(), "");
	/* when the reload is called off, then the watch goes on */
	gen->state = PB_GEN_LIVE;
	pb_gen_release(gen);
	cr_expect_str_eq(heard(), "+a ");
}

Test(watch, a_watch_is_opened_from_start_to_quiesce_only)
{
	static const enum pb_gen_state wrong[] = {PB_GEN_PREPARING, PB_GEN_PREPARED,
						  PB_GEN_TAKEOVER, PB_GEN_QUIESCED,
						  PB_GEN_RETIRING};

	for (size_t i = 0; i < PB_ARRAY_LEN(wrong); i++) {
		gen->state = wrong[i];
		cr_expect_eq(open_watch(gen), -EPERM, "state %d", wrong[i]);
	}
	cr_expect_str_eq(gen->fail.text,
			 "kube_watch_open() may be called from start() to quiesce()");
	gen->state = PB_GEN_LIVE;
	cr_expect_eq(gen->ctx.host->kube_watch_open(&gen->ctx, 99, on_event, NULL, &watch_id),
		     -EINVAL);
	cr_expect_eq(gen->ctx.host->kube_watch_close(&gen->ctx, 0), -ENOENT);
}

Test(watch, a_watch_that_is_left_open_ends_with_its_generation)
{
	struct pb_generation *other = generation(PB_GEN_LIVE);

	cr_assert_eq(open_watch(other), 0);
	pb_gen_free(other);
	put("a");
	cr_expect_str_eq(heard(), "");
}

/* ---- ranges ---- */

static const void *holder;
static unsigned holds, released_all;

static int cidr_hold(void *arg, const void *owner, const struct pb_cidr *cidr,
		     uint32_t *ret_identity)
{
	cr_expect_eq(arg, &m);
	holder = owner;
	holds++;
	*ret_identity = PB_IDENTITY_CIDR + cidr->bits;
	return cidr->bits == 9 ? -ENOSPC : 0;
}

static int cidr_release(void *arg, const void *owner, const struct pb_cidr *cidr)
{
	(void)arg;
	(void)cidr;
	cr_expect_eq(owner, holder);
	return holds-- ? 0 : -ENOENT;
}

static void cidr_release_all(void *arg, const void *owner)
{
	(void)arg;
	cr_expect_eq(owner, holder);
	released_all++;
}

static const struct pb_manager_cidr_ops cidr_ops = {.hold = cidr_hold,
						    .release = cidr_release,
						    .release_all = cidr_release_all,
						    .arg = &m};

static int hold(const struct pb_cidr *cidr)
{
	uint32_t identity = 0;

	return gen->ctx.host->cidr_hold(&gen->ctx, cidr, &identity);
}

Test(watch, ranges_are_held_for_the_generation_and_released_with_it)
{
	struct pb_cidr lan = {.family = 4, .bits = 8, .addr.bytes = {10}};
	struct pb_generation *other = generation(PB_GEN_PREPARING);

	m.env.cidrs = cidr_ops;
	cr_expect_eq(hold(&lan), 0);
	cr_expect_eq(holder, gen);
	cr_expect_eq(gen->ctx.host->cidr_release(&gen->ctx, &lan), 0);
	lan.bits = 9;
	cr_expect_eq(hold(&lan), -ENOSPC);
	cr_expect_str_eq(gen->fail.text, "cidr_hold(): No space left on device");
	pb_gen_free(other);
	cr_expect_eq(released_all, 0, "one that held nothing has nothing to release");
	pb_gen_free(gen);
	cr_expect_eq(released_all, 1);
	gen = generation(PB_GEN_LIVE);
}

Test(watch, a_range_that_is_none_is_refused_before_anybody_is_asked)
{
	static const struct {
		struct pb_cidr cidr;
		const char *text;
	} wrong[] = {
		{{.family = 5, .bits = 8}, "cidr_hold(): the family must be 4 or 6"},
		{{.family = 4, .bits = 33}, "cidr_hold(): a prefix of 33 bits in family 4"},
		{{.family = 4, .bits = 8, .addr.bytes = {10, 1}},
		 "cidr_hold(): the address has bits outside of its prefix of 8"},
		{{.family = 6, .bits = 127, .addr.bytes = {[15] = 1}},
		 "cidr_hold(): the address has bits outside of its prefix of 127"},
	};

	m.env.cidrs = cidr_ops;
	for (size_t i = 0; i < PB_ARRAY_LEN(wrong); i++) {
		cr_expect_eq(hold(&wrong[i].cidr), -EINVAL);
		cr_expect_str_eq(gen->fail.text, wrong[i].text);
	}
	cr_expect_eq(holds, 0);
	gen->state = PB_GEN_QUIESCED;
	cr_expect_eq(hold(&wrong[0].cidr), -EPERM);
}

Test(watch, an_agent_without_an_ipcache_says_so)
{
	const struct pb_cidr lan = {.family = 4, .bits = 8, .addr.bytes = {10}};

	cr_expect_eq(hold(&lan), -EOPNOTSUPP);
	cr_expect_str_eq(gen->fail.text, "cidr_hold(): this agent has no ipcache");
}
