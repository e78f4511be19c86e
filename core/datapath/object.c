/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A BPF object of a plugin (or of the core): ELF bytes, constants and maps.
 *
 * Owns the way from ELF bytes to loaded programs. The ELF is opened anew for every load, since
 * every load has other constants; the maps are those of the registry. Nothing here may create a
 * program's map behind the registry's back.
 */
#include <datapath/internal.h>
#include <datapath/bpflog.h>

#include <fcntl.h>

struct object_const {
	struct object_const *next;
	char *name;
	uint32_t len;
	unsigned char value[];
};

struct object_map {
	char *name;
	struct pb_map_opts opts;
	struct pb_reg_map *reg; /* NULL until prepared */
};

struct pb_dp_object {
	struct pb_dp *dp;
	char *plugin;
	char *name;
	const void *elf;
	size_t elf_len;
	bool core;
	struct object_const *consts; /* guarded by dp->lock: reconfigure() sets them any time */
	struct object_map *maps;
	size_t n_maps;
	struct pb_map_opts *opts; /* as registered; names are ours */
	size_t n_opts;
};

static int object_err(const struct pb_dp_object *o, struct pb_err *err, int rc, const char *fmt,
		      ...)
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

struct pb_dp_object *pb_dp_object_free(struct pb_dp_object *o)
{
	if (!o)
		return NULL;
	for (size_t i = 0; i < o->n_maps; i++) {
		pb_reg_put(o->dp, o->maps[i].reg);
		free(o->maps[i].name);
	}
	for (size_t i = 0; i < o->n_opts; i++)
		free((void *)o->opts[i].name);
	while (o->consts) {
		struct object_const *c = o->consts;

		o->consts = c->next;
		free(c);
	}
	free(o->maps);
	free(o->opts);
	free(o->plugin);
	free(o->name);
	free(o);
	return NULL;
}

int pb_dp_object_const(struct pb_dp_object *o, const char *name, const void *value, uint32_t len,
		       struct pb_err *err)
{
	size_t name_len = strlen(name) + 1;
	struct object_const *c = malloc(sizeof(*c) + len + name_len);
	struct object_const **p;

	if (!c)
		return pb_err_set(err, -ENOMEM, "no memory");
	c->len = len;
	c->name = (char *)c->value + len;
	memcpy(c->value, value, len);
	memcpy(c->name, name, name_len);
	uv_mutex_lock(&o->dp->lock);
	for (p = &o->consts; *p; p = &(*p)->next)
		if (strcmp((*p)->name, name) == 0) {
			struct object_const *old = *p;

			*p = old->next;
			free(old);
			break;
		}
	c->next = o->consts;
	o->consts = c;
	uv_mutex_unlock(&o->dp->lock);
	return 0;
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
	for (size_t i = 0; i < o->n_maps; i++)
		if (o->maps[i].reg)
			pb_reg_commit(o->maps[i].reg);
}

/* ---- constants ---- */

static const struct btf_var_secinfo *find_global(const struct btf *btf, const char *section,
						 const char *name)
{
	int id = btf ? btf__find_by_name_kind(btf, section, BTF_KIND_DATASEC) : -1;
	const struct btf_type *sec = id < 0 ? NULL : btf__type_by_id(btf, (uint32_t)id);

	for (uint16_t i = 0; sec && i < btf_vlen(sec); i++) {
		const struct btf_var_secinfo *v = btf_var_secinfos(sec) + i;
		const struct btf_type *var = btf__type_by_id(btf, v->type);

		if (!name || strcmp(btf__name_by_offset(btf, var->name_off), name) == 0)
			return v;
	}
	return NULL;
}

static struct bpf_map *find_rodata(const struct bpf_object *obj)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, obj)
	{
		const char *suffix = strrchr(bpf_map__name(map), '.');

		if (bpf_map__is_internal(map) && suffix && strcmp(suffix, ".rodata") == 0)
			return map;
	}
	return NULL;
}

static int write_const(const struct pb_dp_object *o, struct bpf_object *obj, const char *name,
		       const void *value, uint32_t len, struct pb_err *err)
{
	const struct btf_var_secinfo *v = find_global(bpf_object__btf(obj), ".rodata", name);
	struct bpf_map *map = find_rodata(obj);
	size_t size = 0;
	/* libbpf gives its private copy of the section, const only by its prototype. */
	char *data = map ? (char *)bpf_map__initial_value(map, &size) : NULL;

	if (!v || !data)
		return object_err(o, err, -ENOENT,
				  "the object has no constant %s; declare it as `const volatile`, "
				  "global and not static",
				  name);
	if (v->size != len || v->offset + v->size > size)
		return object_err(o, err, -EINVAL, "the constant %s has %u bytes, %u were given",
				  name, v->size, len);
	memcpy(data + v->offset, value, len);
	return 0;
}

static int write_plugin_consts(const struct pb_dp_object *o, struct bpf_object *obj,
			       struct pb_err *err)
{
	int rc = 0;

	uv_mutex_lock(&o->dp->lock);
	for (const struct object_const *c = o->consts; rc == 0 && c; c = c->next)
		rc = write_const(o, obj, c->name, c->value, c->len, err);
	uv_mutex_unlock(&o->dp->lock);
	return rc;
}

static int write_place(const struct pb_dp_object *o, struct bpf_object *obj,
		       const struct pb_place *place, struct pb_err *err)
{
	const struct {
		const char *name;
		uint32_t value;
	} consts[] = {
		{"pb_hook_id", place->hook},	      {"pb_slot_next", place->slot_next},
		{"pb_slot_exit", place->slot_exit},   {"pb_observed", place->observed},
		{"pb_generation", place->generation},
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < PB_ARRAY_LEN(consts); i++)
		rc = write_const(o, obj, consts[i].name, &consts[i].value, sizeof(uint32_t), err);
	return rc;
}

/* ---- opening ---- */

/*
 * Global variables live as long as a load, so a plugin that kept state in them would lose it at
 * every reload, and each program of a chain would have its own copy.
 */
static int refuse_globals(const struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	static const char *const sections[] = {".data", ".bss"};
	const struct btf *btf = bpf_object__btf(obj);
	struct bpf_map *map;

	if (!btf)
		return object_err(o, err, -EINVAL,
				  "the ELF has no BTF; compile with clang -g -target bpf");
	bpf_object__for_each_map(map, obj)
	{
		for (size_t i = 0; bpf_map__is_internal(map) && i < PB_ARRAY_LEN(sections); i++) {
			const struct btf_var_secinfo *v;

			if (!strstr(bpf_map__name(map), sections[i]))
				continue;
			v = find_global(btf, sections[i], NULL);
			return object_err(
				o, err, -EINVAL,
				"the variable %s (%s) is writable global data, which doesn't "
				"outlive a generation; keep state in a map, or make it `const "
				"volatile`",
				v ? btf__name_by_offset(btf,
							btf__type_by_id(btf, v->type)->name_off)
				  : "?",
				sections[i]);
		}
	}
	return 0;
}

static int object_open(const struct pb_dp_object *o, struct bpf_object **ret_obj,
		       struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf log = {0};
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = o->name);
	struct bpf_object *obj;
	char cause[512];
	int rc;

	pb_bpflog_begin(&log);
	obj = bpf_object__open_mem(o->elf, o->elf_len, &opts);
	rc = obj ? 0 : -errno;
	pb_bpflog_end();
	if (rc < 0) {
		pb_bpflog_cause(log.data ? log.data : "", cause, sizeof(cause));
		return object_err(o, err, rc, "not a BPF object that libbpf can open: %s",
				  cause[0] ? cause : strerror(-rc));
	}
	rc = refuse_globals(o, obj, err);
	if (rc < 0) {
		bpf_object__close(obj);
		return rc;
	}
	*ret_obj = obj;
	return 0;
}

/* Names that start with pb_ are the core's; `*ret_core` is then true. */
static int use_core_map(const struct pb_dp_object *o, struct bpf_map *map, int chain_fd,
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
			return object_err(o, err, -EINVAL,
					  "map %s: names that start with pb_ are the core's, which "
					  "has no such map; choose another name",
					  name);
		rc = bpf_obj_get_info_by_fd(fd, &info, &len);
		if (rc == 0 && (info.key_size != bpf_map__key_size(map) ||
				info.value_size < bpf_map__value_size(map)))
			return object_err(
				o, err, -EINVAL,
				"map %s is smaller in this agent than in the SDK that the "
				"plugin was compiled with; update the agent",
				name);
	}
	rc = bpf_map__reuse_fd(map, fd);
	return rc < 0 ? object_err(o, err, rc, "map %s: %s", name, strerror(-rc)) : 0;
}

/* ---- maps ---- */

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
			return object_err(
				o, err, -ENOENT,
				"options are given for map %s, which the object doesn't have",
				o->opts[i].name);
		if (o->opts[i].flags & ~(PB_MAP_EPHEMERAL | PB_MAP_SHARED))
			return object_err(o, err, -EINVAL, "map %s: unknown flags 0x%x",
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

/* Finds the map in the registry, or leaves it to be created by the load. */
static int prepare_map(struct pb_dp_object *o, struct bpf_object *obj, struct bpf_map *map,
		       struct pb_err *err)
{
	struct object_map *m;
	struct pb_reg_key key;
	int rc = object_add_map(o, bpf_map__name(map));

	if (rc < 0)
		return object_err(o, err, rc, "no memory");
	m = &o->maps[o->n_maps - 1];
	if (m->opts.max_entries)
		rc = bpf_map__set_max_entries(map, m->opts.max_entries);
	if (rc < 0)
		return object_err(o, err, rc, "map %s: can't set max_entries: %s", m->name,
				  strerror(-rc));
	key = (struct pb_reg_key){o->plugin, m->name, m->opts.schema, m->opts.flags};
	rc = pb_reg_find(o->dp, &key, map, bpf_object__btf(obj), &m->reg, err);
	if (rc < 0)
		return pb_err_prefix(err, "plugin %s, object %s", o->plugin, o->name);
	if (!m->reg)
		return 0;
	rc = bpf_map__reuse_fd(map, m->reg->fd);
	return rc < 0 ? object_err(o, err, rc, "map %s: %s", m->name, strerror(-rc)) : 0;
}

static int prepare_maps(struct pb_dp_object *o, struct bpf_object *obj, size_t *ret_missing,
			struct pb_err *err)
{
	struct bpf_map *map;
	int rc;

	*ret_missing = 0;
	bpf_object__for_each_map(map, obj)
	{
		bool core;

		if (bpf_map__is_internal(map))
			continue;
		rc = use_core_map(o, map, -1, &core, err);
		if (rc == 0 && !core)
			rc = prepare_map(o, obj, map, err);
		if (rc < 0)
			return rc;
		if (!core)
			*ret_missing += o->maps[o->n_maps - 1].reg == NULL;
	}
	return 0;
}

static int load(const struct pb_dp_object *o, struct bpf_object *obj, const char *what,
		struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf log = {0};
	char cause[768];
	int rc;

	pb_bpflog_begin(&log);
	rc = bpf_object__load(obj);
	pb_bpflog_end();
	if (rc == 0)
		return 0;
	pb_bpflog_cause(log.data ? log.data : "", cause, sizeof(cause));
	return object_err(o, err, rc, "%s: the kernel refused it: %s", what,
			  cause[0] ? cause : strerror(-rc));
}

static int create_maps(struct pb_dp_object *o, struct bpf_object *obj, struct pb_err *err)
{
	struct bpf_program *prog;
	int rc;

	bpf_object__for_each_program(prog, obj) bpf_program__set_autoload(prog, false);
	rc = load(o, obj, "maps", err);
	for (size_t i = 0; rc == 0 && i < o->n_maps; i++) {
		struct object_map *m = &o->maps[i];
		struct pb_reg_key key = {o->plugin, m->name, m->opts.schema, m->opts.flags};

		if (m->reg)
			continue;
		rc = pb_reg_add(o->dp, &key, bpf_object__find_map_fd_by_name(obj, m->name), &m->reg,
				err);
		if (rc < 0)
			pb_err_prefix(err, "plugin %s, object %s", o->plugin, o->name);
	}
	return rc;
}

int pb_dp_object_prepare(struct pb_dp_object *o, struct pb_err *err)
{
	struct bpf_object *obj = NULL;
	size_t missing = 0;
	int rc = object_open(o, &obj, err);

	if (rc < 0)
		return rc;
	rc = check_opts(o, obj, err);
	if (rc == 0)
		rc = write_plugin_consts(o, obj, err);
	if (rc == 0)
		rc = prepare_maps(o, obj, &missing, err);
	if (rc == 0 && missing > 0)
		rc = create_maps(o, obj, err);
	bpf_object__close(obj);
	return rc;
}

/* ---- programs ---- */

static int reuse_maps(const struct pb_dp_object *o, struct bpf_object *obj, int chain_fd,
		      struct pb_err *err)
{
	struct bpf_map *map;
	int rc;

	bpf_object__for_each_map(map, obj)
	{
		struct pb_reg_map *reg = pb_object_map(o, bpf_map__name(map));
		bool core = false;

		if (bpf_map__is_internal(map))
			continue;
		rc = reg ? bpf_map__reuse_fd(map, reg->fd)
			 : use_core_map(o, map, chain_fd, &core, err);
		if (rc < 0)
			return object_err(o, err, rc, "map %s: can't be reused: %s",
					  bpf_map__name(map), strerror(-rc));
		if (!reg && !core)
			return object_err(o, err, -EINVAL, "map %s: the object wasn't prepared",
					  bpf_map__name(map));
	}
	return 0;
}

static int select_programs(const struct pb_dp_object *o, struct bpf_object *obj,
			   const char *const *names, size_t n, struct pb_err *err)
{
	struct bpf_program *prog;

	bpf_object__for_each_program(prog, obj) bpf_program__set_autoload(prog, false);
	for (size_t i = 0; i < n; i++) {
		prog = bpf_object__find_program_by_name(obj, names[i]);
		if (!prog)
			return object_err(o, err, -ENOENT,
					  "the object has no program named %s (the name of its C "
					  "function)",
					  names[i]);
		bpf_program__set_autoload(prog, true);
	}
	return 0;
}

/* The kernel would say only EINVAL, and only when the chain's array is filled. */
static int check_kind(const struct pb_dp_object *o, struct bpf_object *obj, const char *name,
		      uint32_t hook, struct pb_err *err)
{
	const struct pb_hook_kind *kind = &pb_hook_kinds[hook];
	struct bpf_program *prog = bpf_object__find_program_by_name(obj, name);

	if (!prog || (bpf_program__type(prog) == kind->prog_type &&
		      bpf_program__expected_attach_type(prog) == kind->attach_type))
		return 0;
	return object_err(o, err, -EINVAL, "program %s is SEC(\"%s\"); hook %s needs SEC(\"%s\")",
			  name, bpf_program__section_name(prog), pb_hook_name(hook), kind->section);
}

static int take_fds(struct bpf_object *obj, const char *const *names, size_t n, int *ret_fds)
{
	for (size_t i = 0; i < n; i++) {
		struct bpf_program *prog = bpf_object__find_program_by_name(obj, names[i]);

		ret_fds[i] = fcntl(bpf_program__fd(prog), F_DUPFD_CLOEXEC, 0);
		if (ret_fds[i] < 0) {
			int rc = -errno;

			while (i-- > 0)
				close(ret_fds[i]);
			return rc;
		}
	}
	return 0;
}

int pb_object_load(struct pb_dp_object *o, const char *const *names, size_t n,
		   const struct pb_place *place, int *ret_fds, struct pb_err *err)
{
	PB_FREE char *what = pb_sprintf("program %s", n == 1 ? names[0] : "(all)");
	struct bpf_object *obj = NULL;
	int rc = object_open(o, &obj, err);

	if (rc < 0)
		return rc;
	rc = select_programs(o, obj, names, n, err);
	if (rc == 0 && n == 1)
		rc = check_kind(o, obj, names[0], place->hook, err);
	if (rc == 0)
		rc = write_plugin_consts(o, obj, err);
	if (rc == 0)
		rc = write_place(o, obj, place, err);
	if (rc == 0)
		rc = reuse_maps(o, obj, place->chain_fd, err);
	if (rc == 0)
		rc = load(o, obj, what ? what : "program", err);
	if (rc == 0) {
		rc = take_fds(obj, names, n, ret_fds);
		if (rc < 0)
			object_err(o, err, rc, "out of file descriptors");
	}
	bpf_object__close(obj);
	return rc;
}
