/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The BPF functions of struct pb_host: objects, constants, slots, maps.
 *
 * Owns what a generation declared. Nothing is loaded here; the datapath does that on the thread
 * pool, after prepare().
 */
#include <plugin/private.h>

/* Bytes of the options in ABI 1.0; never change. */
#define OBJECT_SIZE_1_0 40
#define MAP_OPTS_SIZE_1_0 24
#define SLOT_SIZE_1_0 56

static_assert(sizeof(struct pb_bpf_object) >= OBJECT_SIZE_1_0, "options only grow");
static_assert(sizeof(struct pb_map_opts) >= MAP_OPTS_SIZE_1_0, "options only grow");
static_assert(sizeof(struct pb_slot) >= SLOT_SIZE_1_0, "options only grow");

static struct pb_host_object *object_find(struct pb_generation *gen, const char *name)
{
	struct pb_host_object *o;

	LL_FOREACH (gen->objects, o) {
		if (strcmp(o->name, name) == 0)
			return o;
	}
	return NULL;
}

static int object_add(struct pb_generation *gen, const char *name, struct pb_dp_object *dp)
{
	struct pb_host_object *o = calloc(1, sizeof(*o));

	if (o)
		o->name = strdup(name);
	if (!o || !o->name) {
		free(o);
		return -ENOMEM;
	}
	o->dp = dp;
	LL_APPEND(gen->objects, o);
	return 0;
}

/* Whoever borrows needs the owner: it is loaded before and can't be unloaded meanwhile. */
static int borrow_check(struct pb_generation *gen, const struct pb_bpf_object *o,
			const struct pb_map_opts *mo)
{
	char list[sizeof(gen->manifest.requires)], *save = NULL;

	if (!(mo->flags & PB_MAP_BORROWED))
		return 0;
	if (mo->flags != PB_MAP_BORROWED || mo->max_entries)
		return pb_err_set(&gen->fail, -EINVAL,
				  "bpf_object(): %s: map %s: a borrowed map takes its size and "
				  "all that other flags say from its owner",
				  o->name, mo->name);
	memcpy(list, gen->manifest.requires, sizeof(list));
	for (char *w = strtok_r(list, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (pb_borrow_from(mo->name, w))
			return 0;
	}
	return pb_err_set(&gen->fail, -EINVAL,
			  "bpf_object(): %s: map %s: a borrowed map is named PLUGIN__MAP, and the "
			  "manifest must require that plugin",
			  o->name, mo->name);
}

/* Elements lie as far apart as the plugin's compiler saw them. */
static int map_opts_check(struct pb_generation *gen, const struct pb_bpf_object *o)
{
	const char *at = (const char *)o->maps;

	for (uint32_t i = 0; i < o->n_maps; i++) {
		struct pb_map_opts mo;

		if (pb_host_opts(&mo, sizeof(mo), MAP_OPTS_SIZE_1_0, at) < 0 || !mo.name)
			return pb_err_set(&gen->fail, -EINVAL,
					  "bpf_object(): %s: every struct pb_map_opts needs its "
					  "size and a name",
					  o->name);
		if (mo.flags & ~(PB_MAP_EPHEMERAL | PB_MAP_SHARED | PB_MAP_BORROWED))
			return pb_err_set(&gen->fail, -EINVAL,
					  "bpf_object(): %s: map %s: unknown bits in flags %#x",
					  o->name, mo.name, mo.flags);
		if (borrow_check(gen, o, &mo) < 0)
			return -EINVAL;
		at += mo.size;
	}
	return 0;
}

static int object_check(struct pb_generation *gen, const struct pb_bpf_object *opts,
			struct pb_bpf_object *ret_object)
{
	struct pb_bpf_object *o = ret_object;

	if (pb_host_opts(o, sizeof(*o), OBJECT_SIZE_1_0, opts) < 0 || !o->name || !*o->name ||
	    !o->elf || o->elf_len == 0 || (o->n_maps && !o->maps))
		return pb_err_set(&gen->fail, -EINVAL,
				  "bpf_object(): size, name and ELF bytes must be given");
	if (object_find(gen, o->name))
		return pb_err_set(&gen->fail, -EEXIST, "bpf_object(): %s is registered already",
				  o->name);
	return map_opts_check(gen, o);
}

int pb_host_bpf_object(struct pb_ctx *ctx, const struct pb_bpf_object *opts)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_dp_object *dp = NULL;
	struct pb_bpf_object o;
	int rc;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "bpf_object()", "in prepare() only");
	rc = object_check(gen, opts, &o);
	if (rc < 0)
		return rc;
	rc = pb_dp_object_new(gen->manager->env.dp, gen->plugin->name, &o, &dp, &gen->fail);
	if (rc < 0)
		return rc;
	rc = object_add(gen, o.name, dp);
	if (rc < 0) {
		pb_dp_object_free(dp);
		return pb_err_set(&gen->fail, rc, "bpf_object(): out of memory");
	}
	return 0;
}

int pb_host_bpf_const(struct pb_ctx *ctx, const char *object, const char *name, const void *value,
		      uint32_t len)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_object *o;
	int rc;

	if (gen->state != PB_GEN_PREPARING && !gen->reconfiguring)
		return pb_host_wrong_step(gen, "bpf_const()",
					  "in prepare() and reconfigure() only");
	o = object_find(gen, object);
	if (!o)
		return pb_err_set(&gen->fail, -ENOENT, "bpf_const(): no object %s", object);
	rc = pb_dp_object_const(o->dp, name, value, len, &gen->fail);
	if (rc == 0)
		gen->consts_dirty = true;
	return rc;
}

static char *dup_or_empty(const char *s)
{
	return strdup(s ? s : "");
}

static struct pb_host_slot *slot_free(struct pb_host_slot *s)
{
	if (s) {
		free(s->name);
		free(s->object);
		free(s->program);
		free(s->before);
		free(s->after);
		free(s);
	}
	return NULL;
}

static struct pb_host_slot *slot_new(const struct pb_slot *opts)
{
	struct pb_host_slot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->hook = opts->hook;
	s->band = opts->band;
	s->name = dup_or_empty(opts->name);
	s->object = dup_or_empty(opts->object);
	s->program = dup_or_empty(opts->program);
	s->before = dup_or_empty(opts->before);
	s->after = dup_or_empty(opts->after);
	if (!s->name || !s->object || !s->program || !s->before || !s->after)
		return slot_free(s);
	return s;
}

/* Names are unique on a hook, over all plugins. */
static const char *slot_taken(struct pb_generation *gen, uint32_t hook, const char *name)
{
	struct pb_plugin_entry *p;
	struct pb_host_slot *s;

	LL_FOREACH (gen->slots, s) {
		if (s->hook == hook && strcmp(s->name, name) == 0)
			return gen->plugin->name;
	}
	LL_FOREACH (gen->manager->plugins, p) {
		if (!p->live || p == gen->plugin)
			continue;
		LL_FOREACH (p->live->slots, s) {
			if (s->hook == hook && strcmp(s->name, name) == 0)
				return p->name;
		}
	}
	return NULL;
}

static int slot_check(struct pb_generation *gen, const struct pb_slot *opts)
{
	const char *owner;

	if (opts->hook >= PB_HOOK_COUNT || opts->band >= PB_BAND_COUNT || opts->flags)
		return pb_err_set(&gen->fail, -EINVAL, "slot(): unknown hook, band or flag");
	if (!opts->name || !*opts->name || !opts->program || !opts->object)
		return pb_err_set(&gen->fail, -EINVAL,
				  "slot(): name, object and program must be given");
	if (!object_find(gen, opts->object))
		return pb_err_set(&gen->fail, -ENOENT, "slot(): %s: no object %s", opts->name,
				  opts->object);
	owner = slot_taken(gen, opts->hook, opts->name);
	if (owner)
		return pb_err_set(&gen->fail, -EEXIST, "slot(): %s on %s belongs to plugin %s",
				  opts->name, pb_hook_name(opts->hook), owner);
	return 0;
}

int pb_host_slot_add(struct pb_ctx *ctx, const struct pb_slot *opts)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_slot *s;
	struct pb_slot slot;
	int rc;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "slot()", "in prepare() only");
	if (pb_host_opts(&slot, sizeof(slot), SLOT_SIZE_1_0, opts) < 0)
		return pb_err_set(&gen->fail, -EINVAL,
				  "slot(): size must be that of struct pb_slot");
	rc = slot_check(gen, &slot);
	if (rc < 0)
		return rc;
	s = slot_new(&slot);
	if (!s)
		return pb_err_set(&gen->fail, -ENOMEM, "slot(): out of memory");
	LL_APPEND(gen->slots, s);
	return 0;
}

int pb_host_map_open(struct pb_ctx *ctx, const char *name, struct pb_map **ret_map)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_host_map *m;
	int rc;

	if (gen->state != PB_GEN_PREPARING)
		return pb_host_wrong_step(gen, "map()", "in prepare() only");
	m = calloc(1, sizeof(*m));
	if (!m)
		return pb_err_set(&gen->fail, -ENOMEM, "map(): out of memory");
	rc = pb_dp_map_new(gen->manager->env.dp, gen->plugin->name, name, &m->map);
	if (rc < 0) {
		free(m);
		return pb_err_set(&gen->fail, rc, "map(): %s: %s", name, strerror(-rc));
	}
	LL_APPEND(gen->maps, m);
	*ret_map = m->map;
	return 0;
}

void pb_gen_keep_consts(struct pb_generation *gen, bool keep)
{
	struct pb_host_object *o;

	LL_FOREACH (gen->objects, o)
		pb_dp_object_keep_consts(o->dp, keep);
	gen->consts_dirty = false;
}

uint32_t pb_gen_hooks(const struct pb_generation *gen)
{
	const struct pb_host_slot *s;
	uint32_t hooks = 0;

	if (!gen)
		return 0;
	LL_FOREACH (gen->slots, s)
		hooks |= 1U << s->hook;
	return hooks;
}

void pb_host_bpf_free(struct pb_generation *gen)
{
	struct pb_host_map *m, *mtmp;
	struct pb_host_slot *s, *stmp;
	struct pb_host_object *o, *otmp;

	LL_FOREACH_SAFE(gen->maps, m, mtmp)
	{
		pb_dp_map_free(m->map);
		free(m);
	}
	LL_FOREACH_SAFE(gen->slots, s, stmp)
	slot_free(s);
	LL_FOREACH_SAFE(gen->objects, o, otmp)
	{
		pb_dp_object_free(o->dp);
		free(o->name);
		free(o);
	}
	gen->maps = NULL;
	gen->slots = NULL;
	gen->objects = NULL;
}
