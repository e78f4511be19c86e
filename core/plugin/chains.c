/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operation asks of the datapath.
 *
 * Owns the plan: every slot of every plugin that will be live after the operation. The three
 * blocking steps run on the thread pool, one operation at a time.
 */
#include <plugin/op.h>

static struct pb_dp_object *object_of(const struct pb_generation *gen, const char *name)
{
	const struct pb_host_object *o;

	LL_FOREACH (gen->objects, o) {
		if (strcmp(o->name, name) == 0)
			return o->dp;
	}
	return NULL;
}

static size_t count_slots(const struct pb_generation *gen)
{
	const struct pb_host_slot *s;
	size_t n = 0;

	LL_COUNT(gen->slots, s, n);
	return n;
}

static void plan_add(struct pb_op *op, const struct pb_generation *gen)
{
	const struct pb_host_slot *s;

	LL_FOREACH (gen->slots, s)
		op->plan[op->n_plan++] = (struct pb_dp_slot){.hook = s->hook,
							     .band = s->band,
							     .plugin = gen->plugin->name,
							     .name = s->name,
							     .program = s->program,
							     .before = s->before,
							     .after = s->after,
							     .object = object_of(gen, s->object)};
}

static bool borrows(const struct pb_generation *gen, const char *plugin)
{
	const struct pb_host_object *o;

	LL_FOREACH (gen->objects, o) {
		if (pb_dp_object_borrows(o->dp, plugin))
			return true;
	}
	return false;
}

/* The owner's maps may be others now: programs that borrow them are loaded again. */
static uint32_t hooks_of_borrowers(const struct pb_op *op)
{
	const struct pb_plugin_entry *p;
	uint32_t hooks = 0;

	LL_FOREACH (op->m->plugins, p) {
		if (p->live && p != op->plugin && borrows(p->live, op->name))
			hooks |= pb_gen_hooks(p->live);
	}
	return hooks;
}

int pb_op_plan(struct pb_op *op, struct pb_generation *without, struct pb_generation *with)
{
	struct pb_plugin_entry *p;
	size_t n = with ? count_slots(with) : 0;

	LL_FOREACH (op->m->plugins, p) {
		if (p->live && p->live != without)
			n += count_slots(p->live);
	}
	free(op->plan);
	op->n_plan = 0;
	op->plan = calloc(n ? n : 1, sizeof(*op->plan));
	if (!op->plan)
		return pb_err_set(&op->err, -ENOMEM, "out of memory");
	LL_FOREACH (op->m->plugins, p) {
		if (p->live && p->live != without)
			plan_add(op, p->live);
	}
	if (with)
		plan_add(op, with);
	op->hooks = pb_gen_hooks(without) | pb_gen_hooks(with);
	if (with)
		op->hooks |= hooks_of_borrowers(op);
	return 0;
}

static int prepare_objects(struct pb_generation *gen, struct pb_err *err)
{
	struct pb_host_object *o;
	int rc = 0;

	LL_FOREACH (gen->objects, o) {
		rc = pb_dp_object_prepare(o->dp, err);
		if (rc < 0)
			break;
	}
	return rc;
}

static int resolve_maps(struct pb_generation *gen, struct pb_err *err)
{
	struct pb_dp_object **objects;
	struct pb_host_object *o;
	struct pb_host_map *map;
	size_t n = 0, i = 0;
	int rc = 0;

	LL_COUNT(gen->objects, o, n);
	objects = calloc(n ? n : 1, sizeof(struct pb_dp_object *));
	if (!objects)
		return pb_err_set(err, -ENOMEM, "out of memory");
	LL_FOREACH (gen->objects, o)
		objects[i++] = o->dp;
	LL_FOREACH (gen->maps, map) {
		rc = pb_dp_map_resolve(map->map, objects, n, err);
		if (rc < 0)
			break;
	}
	free(objects);
	return rc;
}

int pb_op_build(struct pb_op *op, struct pb_err *err)
{
	int rc = 0;

	if (op->gen)
		rc = prepare_objects(op->gen, err);
	if (rc == 0 && op->gen)
		rc = resolve_maps(op->gen, err);
	if (rc == 0 && op->hooks)
		rc = pb_dp_build(op->m->env.dp, op->plan, op->n_plan, op->hooks, &op->build, err);
	return rc;
}

int pb_op_flip(struct pb_op *op, struct pb_err *err)
{
	return pb_dp_flip(op->build, err);
}

int pb_op_retire(struct pb_op *op, struct pb_err *err)
{
	return pb_dp_retire(op->build, err);
}
