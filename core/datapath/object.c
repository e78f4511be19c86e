/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A BPF object of a plugin (or of the core): its life, its constants and its maps.
 *
 * Owns the ties between an object and the registry. Nothing here may create a map behind the
 * registry's back.
 */
#include <datapath/object.h>

int pb_object_err(const struct pb_dp_object *o, struct pb_err *err, int rc, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pb_err_setv(err, rc, fmt, ap);
	va_end(ap);
	return pb_err_prefix(err, "plugin %s, object %s", o->plugin, o->name);
}

/* ---- life ---- */

static int object_copy_opts(struct pb_dp_object *o, const struct pb_bpf_object *opts)
{
	const char *at = (const char *)opts->maps;

	o->opts = calloc(opts->n_maps ? opts->n_maps : 1, sizeof(*o->opts));
	if (!o->opts)
		return -ENOMEM;
	for (uint32_t i = 0; i < opts->n_maps; i++) {
		const struct pb_map_opts *src = (const void *)at;
		size_t len = src->size < sizeof(*src) ? src->size : sizeof(*src);

		if (src->size == 0)
			return -EINVAL;
		memcpy(&o->opts[i], src, len);
		o->opts[i].name = src->name ? strdup(src->name) : NULL;
		if (!o->opts[i].name)
			return -EINVAL;
		o->n_opts++;
		at += src->size;
	}
	return 0;
}

static int object_new(struct pb_dp *dp, const char *plugin, const struct pb_bpf_object *opts,
		      struct pb_dp_object **ret_object, struct pb_err *err)
{
	struct pb_dp_object *o = calloc(1, sizeof(*o));
	int rc;

	if (!o)
		return pb_err_set(err, -ENOMEM, "no memory");
	o->dp = dp;
	o->elf = opts->elf;
	o->elf_len = opts->elf_len;
	o->plugin = strdup(plugin);
	o->name = strdup(opts->name ? opts->name : "");
	rc = !o->plugin || !o->name ? -ENOMEM : object_copy_opts(o, opts);
	if (rc < 0) {
		pb_err_set(
			err, rc,
			"plugin %s, object %s: every struct pb_map_opts needs its size and a name",
			plugin, opts->name ? opts->name : "");
		pb_dp_object_free(o);
		return rc;
	}
	*ret_object = o;
	return 0;
}

int pb_dp_object_new(struct pb_dp *dp, const char *plugin, const struct pb_bpf_object *opts,
		     struct pb_dp_object **ret_object, struct pb_err *err)
{
	return object_new(dp, plugin, opts, ret_object, err);
}

int pb_object_new_core(struct pb_dp *dp, const char *name, const void *elf, size_t elf_len,
		       struct pb_dp_object **ret_object, struct pb_err *err)
{
	const struct pb_bpf_object opts = {.size = sizeof(opts),
					   .name = name,
					   .elf = elf,
					   .elf_len = elf_len};
	int rc = object_new(dp, PB_CORE_PLUGIN, &opts, ret_object, err);

	if (rc == 0)
		(*ret_object)->core = true;
	return rc;
}

static void consts_free(struct object_const *c)
{
	while (c) {
		struct object_const *next = c->next;

		free(c);
		c = next;
	}
}

struct pb_dp_object *pb_dp_object_free(struct pb_dp_object *o)
{
	if (!o)
		return NULL;
	for (size_t i = 0; i < o->n_maps; i++) {
		pb_reg_put(o->dp, o->maps[i].reg);
		pb_reg_put(o->dp, o->maps[i].small);
		free(o->maps[i].name);
	}
	for (size_t i = 0; i < o->n_opts; i++)
		free((void *)o->opts[i].name);
	consts_free(o->consts);
	consts_free(o->tried);
	free(o->maps);
	free(o->opts);
	free(o->plugin);
	free(o->name);
	free(o);
	return NULL;
}

/* Puts c in place of the one of its name. */
static void const_set(struct object_const **list, struct object_const *c)
{
	struct object_const **p = list, *old;

	while (*p && strcmp((*p)->name, c->name) != 0)
		p = &(*p)->next;
	old = *p;
	if (old)
		*p = old->next;
	free(old);
	c->next = *list;
	*list = c;
}

int pb_dp_object_const(struct pb_dp_object *o, const char *name, const void *value, uint32_t len,
		       struct pb_err *err)
{
	size_t name_len = strlen(name) + 1;
	struct object_const *c = malloc(sizeof(*c) + len + name_len);

	if (!c)
		return pb_err_set(err, -ENOMEM, "no memory");
	c->len = len;
	c->name = (char *)c->value + len;
	memcpy(c->value, value, len);
	memcpy(c->name, name, name_len);
	uv_mutex_lock(&o->dp->lock);
	const_set(&o->tried, c);
	uv_mutex_unlock(&o->dp->lock);
	return 0;
}

void pb_dp_object_keep_consts(struct pb_dp_object *o, bool keep)
{
	struct object_const *c, *next;

	uv_mutex_lock(&o->dp->lock);
	for (c = PB_TAKE_PTR(o->tried); c; c = next) {
		next = c->next;
		if (keep)
			const_set(&o->consts, c);
		else
			free(c);
	}
	uv_mutex_unlock(&o->dp->lock);
}

struct pb_reg_map *pb_object_map(const struct pb_dp_object *o, const char *name)
{
	for (size_t i = 0; i < o->n_maps; i++)
		if (strcmp(o->maps[i].name, name) == 0)
			return o->maps[i].reg;
	return NULL;
}

const char *pb_object_plugin(const struct pb_dp_object *o)
{
	return o->plugin;
}

void pb_object_commit(struct pb_dp_object *o)
{
	for (size_t i = 0; i < o->n_maps; i++) {
		if (!o->maps[i].reg)
			continue;
		pb_reg_commit(o->maps[i].reg);
		pb_reg_live(o->maps[i].reg);
		pb_reg_set_flags(o->dp, o->maps[i].reg, o->maps[i].opts.flags);
	}
}

/* ---- maps ---- */

int pb_object_use_core(const struct pb_dp_object *o, struct bpf_map *map, int chain_fd,
		       bool *ret_core, struct pb_err *err)
{
	const char *name = bpf_map__name(map);
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int fd = chain_fd, rc;

	*ret_core = strncmp(name, "pb_", 3) == 0 &&
		    (!o->core || strcmp(name, "pb_chain") == 0 || pb_dp_core_fd(o->dp, name) >= 0);
	if (!*ret_core)
		return 0;
	if (strcmp(name, "pb_chain") == 0) {
		if (fd < 0)
			return bpf_map__set_autocreate(map, false);
	} else {
		fd = pb_dp_core_fd(o->dp, name);
		if (fd < 0)
			return pb_object_err(
				o, err, -EINVAL,
				"map %s: names that start with pb_ are the core's, which "
				"has no such map; choose another name",
				name);
		rc = bpf_obj_get_info_by_fd(fd, &info, &len);
		if (rc == 0 && (info.key_size != bpf_map__key_size(map) ||
				info.value_size < bpf_map__value_size(map)))
			return pb_object_err(
				o, err, -EINVAL,
				"map %s is smaller in this agent than in the SDK that the "
				"plugin was compiled with; update the agent",
				name);
	}
	rc = bpf_map__reuse_fd(map, fd);
	return rc < 0 ? pb_object_err(o, err, rc, "map %s: %s", name, strerror(-rc)) : 0;
}

static struct pb_map_opts map_opts(const struct pb_dp_object *o, const char *name)
{
	struct pb_map_opts opts = {.size = sizeof(opts), .name = name};

	for (size_t i = 0; i < o->n_opts; i++)
		if (strcmp(o->opts[i].name, name) == 0)
			opts = o->opts[i];
	if (opts.schema == 0)
		opts.schema = 1;
	return opts;
}

static int check_opts(const struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	for (size_t i = 0; i < o->n_opts; i++) {
		if (!bpf_object__find_map_by_name(obj, o->opts[i].name))
			return pb_object_err(
				o, err, -ENOENT,
				"options are given for map %s, which the object doesn't have",
				o->opts[i].name);
		if (o->opts[i].flags & ~(PB_MAP_EPHEMERAL | PB_MAP_SHARED | PB_MAP_BORROWED))
			return pb_object_err(o, err, -EINVAL, "map %s: unknown flags 0x%x",
					     o->opts[i].name, o->opts[i].flags);
	}
	return 0;
}

static int object_add_map(struct pb_dp_object *o, const char *name)
{
	struct object_map *maps = realloc(o->maps, (o->n_maps + 1) * sizeof(*maps));

	if (!maps)
		return -ENOMEM;
	o->maps = maps;
	maps[o->n_maps] = (struct object_map){.name = strdup(name), .opts = map_opts(o, name)};
	if (!maps[o->n_maps].name)
		return -ENOMEM;
	maps[o->n_maps].opts.name = maps[o->n_maps].name;
	o->n_maps++;
	return 0;
}

static struct pb_reg_key object_key(const struct pb_dp_object *o, const struct object_map *m)
{
	return (struct pb_reg_key){.plugin = o->plugin,
				   .name = m->name,
				   .schema = m->opts.schema,
				   .flags = m->opts.flags,
				   .sized = m->opts.max_entries > 0};
}

/* Finds the map in the registry, or leaves it to be created by the load. */
static int prepare_map(struct pb_dp_object *o, struct bpf_object *obj, struct bpf_map *map,
		       struct pb_err *err)
{
	struct object_map *m;
	struct pb_reg_key key;
	int rc = object_add_map(o, bpf_map__name(map));

	if (rc < 0)
		return pb_object_err(o, err, rc, "no memory");
	m = &o->maps[o->n_maps - 1];
	if (m->opts.max_entries)
		rc = bpf_map__set_max_entries(map, m->opts.max_entries);
	if (rc < 0)
		return pb_object_err(o, err, rc, "map %s: can't set max_entries: %s", m->name,
				     strerror(-rc));
	key = object_key(o, m);
	rc = pb_reg_find(o->dp, &key, map, bpf_object__btf(obj), &m->reg, &m->small, err);
	if (rc < 0)
		return pb_err_prefix(err, "plugin %s, object %s", o->plugin, o->name);
	if (!m->reg)
		return 0;
	rc = bpf_map__reuse_fd(map, m->reg->fd);
	return rc < 0 ? pb_object_err(o, err, rc, "map %s: %s", m->name, strerror(-rc)) : 0;
}

static int prepare_maps(struct pb_dp_object *o, struct bpf_object *obj, size_t *ret_missing,
			struct pb_err *err)
{
	struct bpf_map *map;
	int rc;

	*ret_missing = 0;
	bpf_object__for_each_map(map, obj)
	{
		const struct pb_map_opts *lent = pb_borrow_opts(o, bpf_map__name(map));
		bool core = false;

		if (bpf_map__is_internal(map))
			continue;
		rc = lent ? pb_borrow_use(o, NULL, lent, map, bpf_object__btf(obj), err)
			  : pb_object_use_core(o, map, -1, &core, err);
		if (rc == 0 && !lent && !core)
			rc = prepare_map(o, obj, map, err);
		if (rc < 0)
			return rc;
		if (!lent && !core)
			*ret_missing += o->maps[o->n_maps - 1].reg == NULL;
	}
	return 0;
}

static int create_maps(struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	struct bpf_program *prog;
	int rc;

	bpf_object__for_each_program(prog, obj) bpf_program__set_autoload(prog, false);
	rc = pb_elf_load(o, obj, "maps", err);
	for (size_t i = 0; rc == 0 && i < o->n_maps; i++) {
		struct object_map *m = &o->maps[i];
		struct pb_reg_key key = object_key(o, m);

		if (m->reg)
			continue;
		rc = pb_reg_add(o->dp, &key, bpf_object__find_map_fd_by_name(obj, m->name),
				m->small, &m->reg, err);
		/* It lives as long as a generation has it, not as long as this one. */
		m->small = pb_reg_put(o->dp, m->small);
		if (rc < 0)
			pb_err_prefix(err, "plugin %s, object %s", o->plugin, o->name);
	}
	return rc;
}

int pb_dp_object_prepare(struct pb_dp_object *o, struct pb_err *err)
{
	struct bpf_object *obj = NULL;
	size_t missing = 0;
	int rc = pb_elf_open(o, &obj, err);

	if (rc < 0)
		return rc;
	rc = check_opts(o, obj, err);
	if (rc == 0)
		rc = pb_elf_write_consts(o, obj, err);
	if (rc == 0)
		rc = prepare_maps(o, obj, &missing, err);
	if (rc == 0 && missing > 0)
		rc = create_maps(o, obj, err);
	bpf_object__close(obj);
	return rc;
}
