/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings what runs in line with a configuration.
 *
 * Owns the list of what has to be done and its order. Plugins may require one another, and only
 * their files say so; whatever fails for that reason alone is tried again after the others, as
 * long as a round got anything done.
 */
#include <plugin/op.h>

struct item {
	enum pb_op_kind kind;
	char *name;
	char *json;
	char *why; /* last failure */
	bool required;
	struct item *next;
};

struct pb_apply {
	struct pb_manager *m;
	const struct pb_config *config;
	struct item *todo, *later;
	bool progress;
	bool required_failed;
	bool joined;
	unsigned failures;
	struct pb_buf text;
	pb_manager_done_fn done;
	void *arg;
	struct pb_apply *next; /* the following apply, which waits */
};

static struct item *item_free(struct item *i)
{
	if (i) {
		free(i->name);
		free(i->json);
		free(i->why);
		free(i);
	}
	return NULL;
}

static int item_add(struct pb_apply *a, enum pb_op_kind kind, const char *name,
		    const struct pb_config_plugin *c)
{
	struct item *i = calloc(1, sizeof(*i));

	if (!i)
		return -ENOMEM;
	i->kind = kind;
	i->name = strdup(name);
	i->json = c && c->json ? strdup(c->json) : NULL;
	i->required = c && c->required;
	if (!i->name || (c && c->json && !i->json)) {
		item_free(i);
		return -ENOMEM;
	}
	LL_APPEND(a->todo, i);
	return 0;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static enum pb_op_kind what_to_do(const struct pb_generation *live,
				  const struct pb_config_plugin *before,
				  const struct pb_config_plugin *now)
{
	if (!live)
		return PB_OP_LOAD;
	if (before && !same_text(before->path, now->path))
		return PB_OP_RELOAD;
	return strcmp(live->configs->json, now->json ? now->json : "{}") ? PB_OP_RECONFIGURE : 0;
}

static int plan(struct pb_apply *a, const struct pb_config *before)
{
	struct pb_plugin_entry *p;
	int rc = 0;

	LL_FOREACH (a->m->plugins, p) {
		/* What the admin loaded by hand and no configuration ever named stays. */
		if (pb_config_plugin_find(a->config, p->name) ||
		    !pb_config_plugin_find(before, p->name))
			continue;
		if (p->live)
			rc = item_add(a, PB_OP_UNLOAD, p->name, NULL);
		else
			p->failed = p->left_out = false;
	}
	for (size_t i = 0; i < a->config->n_plugins && rc == 0; i++) {
		const struct pb_config_plugin *c = &a->config->plugins[i];
		enum pb_op_kind kind;

		p = pb_plugin_find(a->m, c->name);
		kind = what_to_do(p ? p->live : NULL, pb_config_plugin_find(before, c->name), c);
		if (kind)
			rc = item_add(a, kind, c->name, c);
	}
	return rc;
}

static void apply_next(struct pb_apply *a);

static void item_failed(struct pb_apply *a, struct item *i, const char *text)
{
	a->failures++;
	a->required_failed |= i->required && i->kind == PB_OP_LOAD;
	pb_buf_printf(&a->text, "%s%s", a->text.len ? "; " : "", text);
}

static void item_done(void *arg, int result, const char *text)
{
	struct pb_apply *a = arg;
	struct item *i = a->todo;
	bool retry = a->m->finishing && a->m->finishing->retry_later;

	LL_DELETE(a->todo, i);
	if (result >= 0) {
		a->progress = true;
		item_free(i);
	} else if (retry) {
		free(i->why);
		i->why = strdup(text);
		LL_APPEND(a->later, i);
	} else {
		item_failed(a, i, text);
		item_free(i);
	}
	apply_next(a);
}

static void apply_begin(struct pb_apply *a);

static void apply_finish(struct pb_apply *a)
{
	struct pb_manager *m = a->m;
	struct pb_apply *next = a->next;

	m->applying = next;
	m->first_apply = false;
	if (a->done)
		a->done(a->arg,
			a->required_failed ? -ENOENT
			: a->failures	   ? -EIO
					   : 0,
			a->text.len ? a->text.data : "");
	pb_buf_free(&a->text);
	free(a);
	if (next)
		apply_begin(next);
}

static void join_done(void *arg, int result, const char *text)
{
	struct pb_apply *a = arg;

	if (result < 0) {
		a->failures++;
		for (size_t i = 0; i < a->config->n_plugins; i++)
			a->required_failed |= a->config->plugins[i].required;
		pb_error("plugin", "the chains can't be built: %s", text);
		pb_buf_printf(&a->text, "%sthe chains can't be built: %s", a->text.len ? "; " : "",
			      text);
	}
	apply_finish(a);
}

/* The next round tries what failed for want of others, unless the last one changed nothing. */
static void next_round(struct pb_apply *a)
{
	struct item *i;

	if (a->progress) {
		a->todo = PB_TAKE_PTR(a->later);
		a->progress = false;
		return;
	}
	while ((i = a->later)) {
		LL_DELETE(a->later, i);
		pb_error("plugin", "%s", i->why ? i->why : "out of memory");
		item_failed(a, i, i->why ? i->why : "out of memory");
		item_free(i);
	}
}

static void apply_next(struct pb_apply *a)
{
	struct pb_manager *m = a->m;
	struct item *i;

	if (!a->todo)
		next_round(a);
	i = a->todo;
	if (i) {
		if (pb_op_queue(m, i->kind, i->name, NULL, i->json, false, item_done, a) < 0)
			item_done(a, -ECANCELED, "the agent is stopping");
		return;
	}
	if (m->first_apply && !a->required_failed && !a->joined) {
		a->joined = true;
		if (pb_op_queue(m, PB_OP_JOIN, "", NULL, NULL, false, join_done, a) == 0)
			return;
	}
	apply_finish(a);
}

static void apply_begin(struct pb_apply *a)
{
	const struct pb_config *before = a->m->config;

	a->m->config = a->config;
	if (plan(a, before) < 0) {
		a->failures++;
		pb_buf_printf(&a->text, "out of memory");
	}
	apply_next(a);
}

void pb_manager_apply(struct pb_manager *m, const struct pb_config *config, pb_manager_done_fn done,
		      void *arg)
{
	struct pb_apply *a = calloc(1, sizeof(*a));

	if (!a) {
		if (done)
			done(arg, -ENOMEM, "out of memory");
		return;
	}
	a->m = m;
	a->config = config;
	a->done = done;
	a->arg = arg;
	LL_APPEND(m->applying, a);
	if (m->applying == a)
		apply_begin(a);
}
