/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps that an object's programs use and another plugin owns (PB_MAP_BORROWED).
 *
 * Owns the way from OWNER__MAP to the map. It is looked up anew whenever programs are loaded,
 * first among the objects of the plan: a reload of the owner brings its new map along before that
 * is live. Nothing here creates, pins or keeps a map.
 */
#include <datapath/object.h>

/* The map's name behind "OWNER__", NULL when there is none. */
static const char *split(const char *name, size_t *ret_owner_len)
{
	const char *mark = strstr(name, "__");

	if (!mark || mark == name || !mark[2])
		return NULL;
	*ret_owner_len = (size_t)(mark - name);
	return mark + 2;
}

/* Names of plugins have dashes where names in C have underscores. */
static bool is_owner(const char *plugin, const char *owner, size_t len)
{
	if (strlen(plugin) != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (owner[i] != (plugin[i] == '-' ? '_' : plugin[i]))
			return false;
	return true;
}

bool pb_borrow_from(const char *name, const char *plugin)
{
	size_t len = 0;

	return split(name, &len) && is_owner(plugin, name, len);
}

static bool borrowed(const struct pb_map_opts *opts)
{
	return opts->flags & PB_MAP_BORROWED;
}

bool pb_dp_object_borrows(const struct pb_dp_object *o, const char *plugin)
{
	for (size_t i = 0; i < o->n_opts; i++)
		if (borrowed(&o->opts[i]) && pb_borrow_from(o->opts[i].name, plugin))
			return true;
	return false;
}

const struct pb_map_opts *pb_borrow_opts(const struct pb_dp_object *o, const char *name)
{
	for (size_t i = 0; i < o->n_opts; i++)
		if (borrowed(&o->opts[i]) && strcmp(o->opts[i].name, name) == 0)
			return &o->opts[i];
	return NULL;
}

/* ---- finding it ---- */

struct found {
	struct pb_reg_map *reg; /* a reference of ours */
	uint32_t flags;
};

static bool find_in_plan(const struct pb_dp_object *o, const struct pb_place *place,
			 const char *owner, size_t owner_len, const char *name, struct found *found)
{
	for (size_t i = 0; place && i < place->n_plan; i++) {
		const struct pb_dp_object *other = place->plan[i].object;

		if (!is_owner(other->plugin, owner, owner_len))
			continue;
		for (size_t j = 0; j < other->n_maps; j++) {
			if (!other->maps[j].reg || strcmp(other->maps[j].name, name) != 0)
				continue;
			found->reg = pb_reg_ref(o->dp, other->maps[j].reg);
			found->flags = other->maps[j].opts.flags;
			return true;
		}
	}
	return false;
}

/* An object of the owner that has no programs, or a plan that isn't made yet. */
static void find_in_use(const struct pb_dp_object *o, const char *owner, size_t owner_len,
			const char *name, uint32_t schema, struct found *found)
{
	uv_mutex_lock(&o->dp->lock);
	for (struct pb_reg_map *map = o->dp->maps; map; map = map->next)
		if (map->refs > 0 && !map->outgrown && strcmp(map->name, name) == 0 &&
		    is_owner(map->plugin, owner, owner_len) &&
		    (!found->reg || found->reg->schema != schema || map->schema == schema))
			found->reg = map;
	if (found->reg) {
		found->reg->refs++;
		found->flags = found->reg->flags;
	}
	uv_mutex_unlock(&o->dp->lock);
}

static int check(const struct pb_dp_object *o, const struct pb_map_opts *opts,
		 const struct found *found, const struct bpf_map *map, const struct btf *btf,
		 struct pb_err *err)
{
	const uint32_t schema = opts->schema ? opts->schema : 1;
	const struct pb_reg_map *reg = found->reg;
	struct pb_reg_diff diff = {0};
	int rc;

	if (!(found->flags & PB_MAP_SHARED))
		return pb_object_err(o, err, -EACCES,
				     "map %s: plugin %s doesn't share its map %s (PB_MAP_SHARED)",
				     opts->name, reg->plugin, reg->name);
	if (reg->schema != schema)
		return pb_object_err(o, err, -EINVAL,
				     "map %s: was compiled for schema %u, but map %s/%s has schema "
				     "%u: install versions of both plugins that belong together",
				     opts->name, schema, reg->plugin, reg->name, reg->schema);
	rc = pb_reg_compare(reg, map, btf, &diff, err);
	if (rc > 0)
		return pb_object_err(
			o, err, -EINVAL,
			"map %s: differs from map %s/%s, which it borrows: %s: install "
			"versions of both plugins that belong together",
			opts->name, reg->plugin, reg->name, diff.what);
	return rc;
}

int pb_borrow_use(const struct pb_dp_object *o, const struct pb_place *place,
		  const struct pb_map_opts *opts, struct bpf_map *map, const struct btf *btf,
		  struct pb_err *err)
{
	struct found found = {0};
	size_t owner_len = 0;
	const char *name = split(opts->name, &owner_len);
	int rc;

	if (!name)
		return pb_object_err(
			o, err, -EINVAL,
			"map %s: a borrowed map (PB_MAP_BORROWED) is named PLUGIN__MAP",
			opts->name);
	if (!find_in_plan(o, place, opts->name, owner_len, name, &found))
		find_in_use(o, opts->name, owner_len, name, opts->schema ? opts->schema : 1,
			    &found);
	if (!found.reg)
		return pb_object_err(o, err, -ENOENT,
				     "map %s: there is no map %s of plugin %.*s to borrow; is the "
				     "plugin loaded, in a version that has the map?",
				     opts->name, name, (int)owner_len, opts->name);
	rc = check(o, opts, &found, map, btf, err);
	if (rc == 0) {
		rc = bpf_map__reuse_fd(map, found.reg->fd);
		if (rc < 0)
			pb_object_err(o, err, rc, "map %s: can't be reused: %s", opts->name,
				      strerror(-rc));
	}
	pb_reg_put(o->dp, found.reg);
	return rc;
}
