/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The function table of the fake host, and what a test reads of it.
 *
 * Owns registrations (objects, slots, commands), metrics, log and the failures that a test asked
 * for. A function that the real host only allows in prepare() is
 * refused elsewhere.
 */
#include "fake.h"

/* ---- failures -------------------------------------------------------------------------- */

static const char *const fault_names[] = {
	"bpf_object",
	"bpf_const",
	"slot",
	"map",
	"map_info",
	"map_lookup",
	"map_update",
	"map_delete",
	"map_next",
	"map_update_batch",
	"publish",
	"withdraw",
	"synced",
	"subscribe",
	"map_delete_batch",
	"kube_watch",
	"event_type",
	"timer_start",
	"event_subscribe",
	"fd_watch",
	"work",
	"metric",
	"command",
	"kube_watch_open",
	"map_memory",
	"cidr_hold",
	"fd_keep",
	"fd_kept",
	"fd_drop",
};

int pb_fake_fail(struct pb_fake *fake, const char *function, uint32_t skip, int err)
{
	struct fake_fault *fault;
	bool known = false;

	for (size_t i = 0; i < PB_ARRAY_LEN(fault_names); i++)
		known = known || strcmp(fault_names[i], function) == 0;
	if (!known)
		return -ENOENT;
	fault = calloc(1, sizeof(*fault));
	if (!fault)
		return -ENOMEM;
	*fault = (struct fake_fault){.function = strdup(function), .skip = skip, .err = err};
	if (!fault->function) {
		free(fault);
		return -ENOMEM;
	}
	LL_APPEND(fake->faults, fault);
	return 0;
}

int fake_fault(struct pb_fake *fake, const char *function)
{
	struct fake_fault *fault;
	int err;

	LL_FOREACH (fake->faults, fault)
		if (strcmp(fault->function, function) == 0)
			break;
	if (!fault)
		return 0;
	if (fault->skip > 0) {
		fault->skip--;
		return 0;
	}
	err = fault->err;
	LL_DELETE(fake->faults, fault);
	free(fault->function);
	free(fault);
	return err;
}

int fake_prepare_only(struct fake_gen *gen, const char *function)
{
	if (gen->phase == FAKE_PREPARING)
		return 0;
	return gen->ctx.host->fail(&gen->ctx, -EPERM, "%s: only allowed in prepare()", function);
}

/* ---- log ------------------------------------------------------------------------------- */

static void host_log(struct pb_ctx *ctx, uint32_t level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	struct pb_fake *fake = fake_gen_of(ctx)->fake;
	PB_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text)
		pb_buf_printf(&fake->log, "%s: %s\n", names[level > 3 ? 3 : level], text);
}

static int host_fail(struct pb_ctx *ctx, int err, const char *fmt, ...)
{
	struct pb_fake *fake = fake_gen_of(ctx)->fake;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(fake->failure, sizeof(fake->failure), fmt, ap);
	va_end(ap);
	return err;
}

const char *pb_fake_failure(const struct pb_fake *fake)
{
	return fake->failure;
}

const char *pb_fake_log(const struct pb_fake *fake)
{
	return fake->log.data;
}

void pb_fake_log_clear(struct pb_fake *fake)
{
	pb_buf_reset(&fake->log);
	fake->failure[0] = '\0';
}

/* ---- configuration, objects, slots ----------------------------------------------------- */

static const char *host_config(struct pb_ctx *ctx)
{
	return fake_gen_of(ctx)->config;
}

static const char *host_node_name(struct pb_ctx *ctx)
{
	return fake_gen_of(ctx)->fake->node;
}

static struct fake_object *object_find(const struct fake_gen *gen, const char *name)
{
	struct fake_object *object;

	LL_FOREACH (gen->objects, object)
		if (strcmp(object->name, name) == 0)
			return object;
	return NULL;
}

static void object_free(struct fake_object *object)
{
	for (uint32_t i = 0; object->maps && i < object->n_maps; i++)
		free((char *)object->maps[i].name);
	free(object->maps);
	free(object->name);
	free(object);
}

static int object_copy(const struct pb_bpf_object *opts, struct fake_object **ret_object)
{
	struct fake_object *object = calloc(1, sizeof(*object));

	if (!object)
		return -ENOMEM;
	object->n_maps = opts->n_maps;
	object->name = strdup(opts->name);
	object->maps = calloc(opts->n_maps + 1, sizeof(*object->maps));
	if (!object->name || !object->maps)
		goto fail;
	for (uint32_t i = 0; i < opts->n_maps; i++) {
		object->maps[i] = opts->maps[i];
		object->maps[i].name = strdup(opts->maps[i].name);
		if (object->maps[i].schema == 0)
			object->maps[i].schema = 1;
		if (!object->maps[i].name)
			goto fail;
	}
	*ret_object = object;
	return 0;
fail:
	object_free(object);
	return -ENOMEM;
}

static int host_bpf_object(struct pb_ctx *ctx, const struct pb_bpf_object *opts)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_object *object = NULL;
	int err = fake_fault(gen->fake, "bpf_object");

	if (err == 0)
		err = fake_prepare_only(gen, "bpf_object");
	if (err < 0)
		return err;
	if (object_find(gen, opts->name))
		return host_fail(ctx, -EEXIST, "BPF object %s: registered twice", opts->name);
	for (uint32_t i = 0; i < opts->n_maps; i++)
		if (opts->maps[i].flags & ~(PB_MAP_EPHEMERAL | PB_MAP_SHARED | PB_MAP_BORROWED))
			return host_fail(ctx, -EINVAL, "BPF object %s: map %s: unknown flags",
					 opts->name, opts->maps[i].name);
	err = object_copy(opts, &object);
	if (err == 0)
		LL_APPEND(gen->objects, object);
	return err;
}

static void const_free(struct fake_const *c)
{
	free(c->object);
	free(c->name);
	free(c->value);
	free(c);
}

static int host_bpf_const(struct pb_ctx *ctx, const char *object, const char *name,
			  const void *value, uint32_t len)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "bpf_const");
	struct fake_const *c;

	if (err < 0)
		return err;
	if (!object_find(gen, object))
		return host_fail(ctx, -ENOENT, "BPF object %s: not registered", object);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->object = strdup(object);
	c->name = strdup(name);
	c->value = malloc(len);
	c->len = len;
	if (!c->object || !c->name || !c->value) {
		const_free(c);
		return -ENOMEM;
	}
	memcpy(c->value, value, len);
	LL_PREPEND(gen->consts, c);
	return 0;
}

static char *copy_or_null(const char *s)
{
	return s ? strdup(s) : NULL;
}

static void slot_free(struct fake_slot *s)
{
	free((char *)s->slot.name);
	free((char *)s->slot.object);
	free((char *)s->slot.program);
	free((char *)s->slot.before);
	free((char *)s->slot.after);
	free(s);
}

static struct fake_slot *slot_find(const struct fake_gen *gen, uint32_t hook, const char *name)
{
	struct fake_slot *s;

	LL_FOREACH (gen->slots, s)
		if (s->slot.hook == hook && strcmp(s->slot.name, name) == 0)
			return s;
	return NULL;
}

static int host_slot(struct pb_ctx *ctx, const struct pb_slot *opts)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "slot");
	struct fake_slot *s;

	if (err == 0)
		err = fake_prepare_only(gen, "slot");
	if (err < 0)
		return err;
	if (opts->hook >= PB_HOOK_COUNT || opts->band >= PB_BAND_COUNT || opts->flags)
		return host_fail(ctx, -EINVAL, "slot %s: no such hook, band or flag", opts->name);
	if (!object_find(gen, opts->object))
		return host_fail(ctx, -ENOENT, "slot %s: BPF object %s is not registered",
				 opts->name, opts->object);
	if (slot_find(gen, opts->hook, opts->name))
		return host_fail(ctx, -EEXIST, "slot %s: on this hook already", opts->name);
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->slot = *opts;
	s->slot.name = strdup(opts->name);
	s->slot.object = strdup(opts->object);
	s->slot.program = strdup(opts->program);
	s->slot.before = copy_or_null(opts->before);
	s->slot.after = copy_or_null(opts->after);
	if (!s->slot.name || !s->slot.object || !s->slot.program) {
		slot_free(s);
		return -ENOMEM;
	}
	LL_APPEND(gen->slots, s);
	return 0;
}

const struct pb_slot *pb_fake_slot(const struct pb_fake *fake, uint32_t hook, const char *name)
{
	const struct fake_slot *s = fake->current ? slot_find(fake->current, hook, name) : NULL;

	return s ? &s->slot : NULL;
}

const void *pb_fake_const(const struct pb_fake *fake, const char *object, const char *name,
			  size_t *ret_len)
{
	struct fake_const *c = NULL;

	if (fake->current)
		LL_FOREACH (fake->current->consts, c)
			if (strcmp(c->object, object) == 0 && strcmp(c->name, name) == 0)
				break;
	if (ret_len)
		*ret_len = c ? c->len : 0;
	return c ? c->value : NULL;
}

/* ---- metrics --------------------------------------------------------------------------- */

static struct fake_metric *metric_at(const struct pb_fake *fake, uint32_t id)
{
	struct fake_metric *metric;

	LL_FOREACH (fake->metrics, metric)
		if (id-- == 0)
			return metric;
	return NULL;
}

static int host_metric(struct pb_ctx *ctx, uint32_t kind, const char *name, const char *help,
		       uint32_t *ret_id)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "metric");
	struct fake_metric *metric;
	uint32_t id = 0;

	if (err < 0)
		return err;
	if ((kind != PB_METRIC_COUNTER && kind != PB_METRIC_GAUGE) || !help || !help[0])
		return host_fail(ctx, -EINVAL, "metric %s: needs a kind and a help text", name);
	LL_FOREACH (gen->fake->metrics, metric) {
		if (strcmp(metric->name, name) == 0)
			break;
		id++;
	}
	if (!metric) {
		metric = calloc(1, sizeof(*metric));
		if (!metric)
			return -ENOMEM;
		metric->name = strdup(name);
		if (!metric->name) {
			free(metric);
			return -ENOMEM;
		}
		LL_APPEND(gen->fake->metrics, metric);
	}
	*ret_id = id;
	return 0;
}

static void host_metric_add(struct pb_ctx *ctx, uint32_t id, uint64_t n)
{
	struct fake_metric *metric = metric_at(fake_gen_of(ctx)->fake, id);

	if (metric)
		metric->value += n;
}

static void host_metric_set(struct pb_ctx *ctx, uint32_t id, uint64_t value)
{
	struct fake_metric *metric = metric_at(fake_gen_of(ctx)->fake, id);

	if (metric)
		metric->value = value;
}

uint64_t pb_fake_metric(const struct pb_fake *fake, const char *name)
{
	struct fake_metric *metric;

	LL_FOREACH (fake->metrics, metric)
		if (strcmp(metric->name, name) == 0)
			return metric->value;
	return 0;
}

/* ---- commands -------------------------------------------------------------------------- */

static struct fake_command *command_find(const struct fake_gen *gen, const char *name)
{
	struct fake_command *c;

	LL_FOREACH (gen->commands, c)
		if (strcmp(c->command.name, name) == 0)
			return c;
	return NULL;
}

static void command_free(struct fake_command *c)
{
	free((char *)c->command.name);
	free((char *)c->command.usage);
	free((char *)c->command.help);
	free(c);
}

static int host_command(struct pb_ctx *ctx, const struct pb_command *opts)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int err = fake_fault(gen->fake, "command");
	struct fake_command *c;

	if (err == 0)
		err = fake_prepare_only(gen, "command");
	if (err < 0)
		return err;
	if (command_find(gen, opts->name))
		return host_fail(ctx, -EEXIST, "command %s: registered twice", opts->name);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->command = *opts;
	c->command.name = strdup(opts->name);
	c->command.usage = strdup(opts->usage);
	c->command.help = strdup(opts->help);
	if (!c->command.name || !c->command.usage || !c->command.help) {
		command_free(c);
		return -ENOMEM;
	}
	LL_APPEND(gen->commands, c);
	return 0;
}

int pb_fake_command(struct pb_fake *fake, const char *name, const char *const *args,
		    uint32_t n_args, char **ret_json)
{
	struct fake_gen *gen = fake->current;
	const struct fake_command *c = gen ? command_find(gen, name) : NULL;
	PB_BUF_FREE struct pb_buf out = {0};
	int err;

	if (!c)
		return -ENOENT;
	err = pb_buf_append(&out, "", 0);
	if (err == 0)
		err = c->command.fn(&gen->ctx, c->command.arg, args, n_args, &out);
	fake_drain(fake);
	if (err == 0)
		*ret_json = PB_TAKE_PTR(out.data);
	return err;
}

/* ---- the end of a generation ----------------------------------------------------------- */

static void handles_free(struct fake_gen *gen)
{
	struct pb_map *handle, *handle_next;
	struct fake_map *map, *map_next;
	struct fake_sub *sub, *sub_next;

	LL_FOREACH_SAFE(gen->handles, handle, handle_next)
	{
		free(handle->name);
		free(handle);
	}
	LL_FOREACH_SAFE(gen->maps, map, map_next)
	fake_map_free(map);
	LL_FOREACH_SAFE(gen->subs, sub, sub_next)
	{
		free(sub->topic);
		free(sub);
	}
}

#define FAKE_FREE_ALL(type_, list_, free_)                                                         \
	do {                                                                                       \
		struct type_ *item_, *next_;                                                       \
		LL_FOREACH_SAFE(list_, item_, next_)                                               \
		free_(item_);                                                                      \
	} while (0)

void fake_gen_free(struct fake_gen *gen)
{
	FAKE_FREE_ALL(fake_object, gen->objects, object_free);
	FAKE_FREE_ALL(fake_const, gen->consts, const_free);
	FAKE_FREE_ALL(fake_slot, gen->slots, slot_free);
	FAKE_FREE_ALL(fake_watch, gen->watches, free);
	FAKE_FREE_ALL(fake_event_sub, gen->event_subs, free);
	FAKE_FREE_ALL(fake_timer, gen->timers, free);
	FAKE_FREE_ALL(fake_fd, gen->fds, free);
	FAKE_FREE_ALL(fake_command, gen->commands, command_free);
	handles_free(gen);
	free(gen->config);
	free(gen);
}

const struct pb_host fake_host = {
	.size = sizeof(struct pb_host),
	.abi_major = PB_ABI_MAJOR,
	.abi_minor = PB_ABI_MINOR,
	.log = host_log,
	.fail = host_fail,
	.config = host_config,
	.node_name = host_node_name,
	.bpf_object = host_bpf_object,
	.bpf_const = host_bpf_const,
	.slot = host_slot,
	.map = fake_host_map,
	.map_info = fake_host_map_info,
	.map_lookup = fake_host_map_lookup,
	.map_update = fake_host_map_update,
	.map_delete = fake_host_map_delete,
	.map_next = fake_host_map_next,
	.map_update_batch = fake_host_map_update_batch,
	.map_delete_batch = fake_host_map_delete_batch,
	.event_type = fake_host_event_type,
	.event_subscribe = fake_host_event_subscribe,
	.publish = fake_host_publish,
	.withdraw = fake_host_withdraw,
	.synced = fake_host_synced,
	.subscribe = fake_host_subscribe,
	.kube_watch = fake_host_kube_watch,
	.timer_start = fake_host_timer_start,
	.timer_stop = fake_host_timer_stop,
	.fd_watch = fake_host_fd_watch,
	.fd_unwatch = fake_host_fd_unwatch,
	.work = fake_host_work,
	.metric = host_metric,
	.metric_add = host_metric_add,
	.metric_set = host_metric_set,
	.command = host_command,
	.buf_append = pb_buf_append,
	.now_ns = pb_fake_now_ns,
	.kube_watch_open = fake_host_kube_watch_open,
	.kube_watch_close = fake_host_kube_watch_close,
	.map_memory = fake_host_map_memory,
	.cidr_hold = fake_host_cidr_hold,
	.cidr_release = fake_host_cidr_release,
	.fd_keep = fake_host_fd_keep,
	.fd_kept = fake_host_fd_kept,
	.fd_drop = fake_host_fd_drop,
};
