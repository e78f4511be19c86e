/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds, checks, pins and forgets maps.
 *
 * Owns the list of maps; a pin is found, opened and removed under the lock of that list only. A
 * map that a load was only tried with leaves neither pin nor flags behind.
 */
#include <datapath/internal.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <base/log.h>

static struct pb_reg_map *reg_free(struct pb_reg_map *map)
{
	if (!map)
		return NULL;
	if (map->memory)
		munmap(map->memory, map->memory_len);
	if (map->fd >= 0)
		close(map->fd);
	free(map->plugin);
	free(map->name);
	free(map->pin);
	free(map->pin_beside);
	free(map);
	return NULL;
}

static char *reg_pin_path(struct pb_dp *dp, const struct pb_reg_key *key)
{
	if (key->flags & PB_MAP_EPHEMERAL)
		return NULL;
	if (strcmp(key->plugin, PB_CORE_PLUGIN) == 0)
		return pb_sprintf("%s/core/%s_v%u", dp->bpffs, key->name, key->schema);
	return pb_sprintf("%s/plugins/%s/%s_v%u", dp->bpffs, key->plugin, key->name, key->schema);
}

static struct pb_reg_map *reg_new(struct pb_dp *dp, const struct pb_reg_key *key, int fd)
{
	struct pb_reg_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	map->plugin = strdup(key->plugin);
	map->name = strdup(key->name);
	map->pin = reg_pin_path(dp, key);
	map->dp = dp;
	map->schema = key->schema;
	map->flags = key->flags;
	map->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	map->refs = 1;
	if (!map->plugin || !map->name || map->fd < 0 ||
	    (!map->pin && !(key->flags & PB_MAP_EPHEMERAL)))
		return reg_free(map);
	return map;
}

/* With dp->lock held. */
static void reg_link(struct pb_dp *dp, struct pb_reg_map *map)
{
	struct pb_reg_map **p;

	for (p = &dp->maps; *p; p = &(*p)->next)
		;
	*p = map;
}

/* ---- is an existing map what the object declares? ---- */

static int mismatch(const struct pb_reg_map *map, const struct pb_reg_diff *diff,
		    struct pb_err *err)
{
	return pb_err_set(
		err, -EINVAL,
		"map %s/%s: %s, but the pinned map (%s) keeps its entries over reloads; give "
		"the map a schema above %u in struct pb_map_opts, or remove the pin if its "
		"entries may go",
		map->plugin, map->name, diff->what, map->pin, map->schema);
}

static int reg_check(const struct pb_reg_map *map, const struct bpf_map *want,
		     const struct btf *btf, bool sized, bool *ret_small, struct pb_err *err)
{
	const uint32_t max = bpf_map__max_entries(want);
	struct pb_reg_diff diff = {0};
	int rc = pb_reg_compare(map, want, btf, &diff, err);

	if (rc == 0 && diff.max_entries != max && !sized) {
		snprintf(diff.what, sizeof(diff.what),
			 "it holds %u entries at most and would hold %u", diff.max_entries, max);
		rc = 1;
	}
	if (rc != 0)
		return rc < 0 ? rc : mismatch(map, &diff, err);
	*ret_small = diff.max_entries < max;
	/* Its entries may not fit into less, and room to spare does no harm. */
	if (diff.max_entries > max)
		pb_warn("datapath",
			"map %s/%s: stays at %u entries: a map that is in use only grows",
			map->plugin, map->name, diff.max_entries);
	return 0;
}

/* ---- the list ---- */

/* With dp->lock held. */
static struct pb_reg_map *reg_lookup(struct pb_dp *dp, const struct pb_reg_key *key)
{
	struct pb_reg_map *map = NULL;

	/* The last one: what grew stands behind what it grew from. */
	for (struct pb_reg_map *at = dp->maps; at; at = at->next)
		if (at->pin && !at->outgrown && at->schema == key->schema &&
		    strcmp(at->name, key->name) == 0 && strcmp(at->plugin, key->plugin) == 0)
			map = at;
	if (map)
		map->refs++;
	return map;
}

/* With dp->lock held. */
static int reg_open_pin(struct pb_dp *dp, const struct pb_reg_key *key, struct pb_reg_map **ret_map,
			struct pb_err *err)
{
	PB_FREE char *pin = reg_pin_path(dp, key);
	PB_CLOSE int fd = -1;

	if (!pin)
		return pb_err_set(err, -ENOMEM, "no memory");
	fd = bpf_obj_get(pin);
	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return pb_err_set(err, fd, "map %s/%s: can't open the pin %s: %s", key->plugin,
				  key->name, pin, strerror(-fd));
	*ret_map = reg_new(dp, key, fd);
	if (!*ret_map)
		return pb_err_set(err, -ENOMEM, "no memory");
	(*ret_map)->adopted = true;
	reg_link(dp, *ret_map);
	return 0;
}

int pb_reg_find(struct pb_dp *dp, const struct pb_reg_key *key, const struct bpf_map *want,
		const struct btf *btf, struct pb_reg_map **ret_map, struct pb_reg_map **ret_small,
		struct pb_err *err)
{
	struct pb_reg_map *map = NULL;
	bool small = false;
	int rc = 0;

	*ret_map = *ret_small = NULL;
	if (key->flags & PB_MAP_EPHEMERAL)
		return 0;
	/* One step, so that a pin that pb_reg_put() is about to remove isn't opened. */
	uv_mutex_lock(&dp->lock);
	map = reg_lookup(dp, key);
	if (!map)
		rc = reg_open_pin(dp, key, &map, err);
	uv_mutex_unlock(&dp->lock);
	if (rc == 0 && map)
		rc = reg_check(map, want, btf, key->sized, &small, err);
	if (rc < 0) {
		pb_reg_put(dp, map);
		return rc;
	}
	*(small ? ret_small : ret_map) = map;
	return 0;
}

static int copy_entries(const struct pb_reg_map *from, const struct pb_reg_map *to)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int cpus = libbpf_num_possible_cpus();
	int rc = bpf_obj_get_info_by_fd(from->fd, &info, &len);
	PB_FREE void *key = calloc(1, info.key_size + 1UL);
	/* Of a per-CPU map a value has a part for each CPU. */
	PB_FREE void *value = calloc(cpus < 1 ? 1 : (size_t)cpus, info.value_size + 8UL);

	if (rc < 0 || cpus < 0)
		return rc < 0 ? rc : cpus;
	if (!key || !value)
		return -ENOMEM;
	rc = bpf_map_get_next_key(from->fd, NULL, key);
	while (rc == 0) {
		rc = bpf_map_lookup_elem(from->fd, key, value);
		if (rc == 0)
			rc = bpf_map_update_elem(to->fd, key, value, BPF_ANY);
		/* The map is in use: an entry may go while we look. */
		if (rc == 0 || rc == -ENOENT)
			rc = bpf_map_get_next_key(from->fd, key, key);
	}
	return rc == -ENOENT ? 0 : rc;
}

static int reg_grow(struct pb_reg_map *map, struct pb_reg_map *small, struct pb_err *err)
{
	int rc = copy_entries(small, map);

	map->pin_beside = pb_sprintf("%s_grown", map->pin);
	if (rc == 0 && !map->pin_beside)
		rc = -ENOMEM;
	if (rc < 0)
		return pb_err_set(err, rc,
				  "map %s/%s: can't copy its entries into a larger one: %s",
				  map->plugin, map->name, strerror(-rc));
	/* Left by an agent that was killed meanwhile. */
	unlink(map->pin_beside);
	map->grown_from = pb_reg_ref(map->dp, small);
	return 0;
}

static const char *pin_now(const struct pb_reg_map *map)
{
	return map->pin_beside ? map->pin_beside : map->pin;
}

static int reg_pin(struct pb_reg_map *map, struct pb_err *err)
{
	PB_FREE char *dir = strdup(map->pin);
	int rc;

	if (!dir)
		return pb_err_set(err, -ENOMEM, "no memory");
	*strrchr(dir, '/') = '\0';
	rc = pb_dir_make(dir, 0700, err);
	if (rc < 0)
		return rc;
	rc = bpf_obj_pin(map->fd, pin_now(map));
	if (rc < 0)
		return pb_err_set(err, rc,
				  "map %s/%s: can't pin it at %s: %s; a name may hold letters, "
				  "digits, _ and -, no dots",
				  map->plugin, map->name, map->pin, strerror(-rc));
	map->fresh = true;
	return 0;
}

int pb_reg_add(struct pb_dp *dp, const struct pb_reg_key *key, int fd, struct pb_reg_map *small,
	       struct pb_reg_map **ret_map, struct pb_err *err)
{
	struct pb_reg_map *map = reg_new(dp, key, fd);
	int rc = 0;

	if (!map)
		return pb_err_set(err, -ENOMEM, "map %s/%s: no memory", key->plugin, key->name);
	if (small)
		rc = reg_grow(map, small, err);
	if (rc == 0 && map->pin)
		rc = reg_pin(map, err);
	if (rc < 0) {
		pb_reg_put(dp, map->grown_from);
		reg_free(map);
		return rc;
	}
	uv_mutex_lock(&dp->lock);
	reg_link(dp, map);
	uv_mutex_unlock(&dp->lock);
	*ret_map = map;
	return 0;
}

struct pb_reg_map *pb_reg_get(struct pb_dp *dp, const char *plugin, const char *name, bool in_use)
{
	struct pb_reg_map *found = NULL;

	uv_mutex_lock(&dp->lock);
	for (struct pb_reg_map *map = dp->maps; map; map = map->next)
		if ((map->refs > 0 || !in_use) && strcmp(map->name, name) == 0 &&
		    strcmp(map->plugin, plugin) == 0 && !map->outgrown &&
		    (!found || map->schema >= found->schema))
			found = map;
	if (found)
		found->refs++;
	uv_mutex_unlock(&dp->lock);
	return found;
}

struct pb_reg_map *pb_reg_ref(struct pb_dp *dp, struct pb_reg_map *map)
{
	uv_mutex_lock(&dp->lock);
	map->refs++;
	uv_mutex_unlock(&dp->lock);
	return map;
}

/* With dp->lock held. Whether a map of the same name and another schema is the one in use. */
static bool reg_superseded(const struct pb_reg_map *map)
{
	for (const struct pb_reg_map *at = map->dp->maps; at; at = at->next)
		if (at->live && at->refs > 0 && at->schema != map->schema &&
		    strcmp(at->name, map->name) == 0 && strcmp(at->plugin, map->plugin) == 0)
			return true;
	return false;
}

/* With dp->lock held. */
static void reg_unlink(struct pb_reg_map *map)
{
	for (struct pb_reg_map **p = &map->dp->maps; *p; p = &(*p)->next)
		if (*p == map) {
			*p = map->next;
			break;
		}
}

struct pb_reg_map *pb_reg_put(struct pb_dp *dp, struct pb_reg_map *map)
{
	struct pb_reg_map *small;
	bool superseded;
	bool gone;

	if (!map)
		return NULL;
	uv_mutex_lock(&dp->lock);
	map->refs--;
	/* A pinned map that was once live stays known: it is there, and reports show it. */
	superseded = map->refs == 0 && map->pin && !map->outgrown && reg_superseded(map);
	gone = map->refs == 0 && (!map->pin || map->fresh || map->outgrown || superseded);
	if (gone)
		reg_unlink(map);
	if (gone && map->pin && (map->fresh || superseded))
		unlink(pin_now(map));
	uv_mutex_unlock(&dp->lock);
	if (!gone)
		return NULL;
	small = map->grown_from;
	reg_free(map);
	return pb_reg_put(dp, small);
}

/* With dp->lock held. */
static int reg_map_memory(struct pb_reg_map *map)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	int rc = bpf_obj_get_info_by_fd(map->fd, &info, &len);
	size_t size = (size_t)info.max_entries * ((info.value_size + 7UL) & ~7UL);
	void *memory;

	if (rc < 0)
		return rc;
	if (info.type != BPF_MAP_TYPE_ARRAY || !(info.map_flags & BPF_F_MMAPABLE))
		return -EOPNOTSUPP;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	map->memory = memory;
	map->memory_len = size;
	return 0;
}

int pb_reg_memory(struct pb_reg_map *map, void **ret_memory, size_t *ret_len)
{
	int rc;

	uv_mutex_lock(&map->dp->lock);
	rc = map->memory ? 0 : reg_map_memory(map);
	if (rc == 0) {
		*ret_memory = map->memory;
		*ret_len = map->memory_len;
	}
	uv_mutex_unlock(&map->dp->lock);
	return rc;
}

void pb_reg_commit(struct pb_reg_map *map)
{
	struct pb_reg_map *small;

	if (!atomic_load(&map->fresh))
		return;
	uv_mutex_lock(&map->dp->lock);
	if (map->pin_beside && rename(map->pin_beside, map->pin) < 0)
		pb_error("datapath", "map %s/%s: can't take over the pin %s: %s", map->plugin,
			 map->name, map->pin, strerror(errno));
	free(PB_TAKE_PTR(map->pin_beside));
	small = PB_TAKE_PTR(map->grown_from);
	if (small)
		small->outgrown = true;
	atomic_store(&map->fresh, false);
	uv_mutex_unlock(&map->dp->lock);
	pb_reg_put(map->dp, small);
}

/* With dp->lock held. */
static bool pin_known(const struct pb_dp *dp, const char *pin)
{
	for (const struct pb_reg_map *at = dp->maps; at; at = at->next)
		if (at->pin && strcmp(at->pin, pin) == 0)
			return true;
	return false;
}

/*
 * With dp->lock held. Pins of other schemas that this process never opened: an older one, or,
 * after a way back, a newer one, whose entries nobody should find again as they are now.
 */
static void remove_unknown(struct pb_reg_map *map)
{
	char *slash = strrchr(map->pin, '/');
	PB_FREE char *dir = strndup(map->pin, (size_t)(slash - map->pin));
	PB_FREE char *prefix = pb_sprintf("%s_v", map->name);
	DIR *entries = dir && prefix ? opendir(dir) : NULL;
	struct dirent *entry;

	while (entries && (entry = readdir(entries))) {
		size_t len = strlen(prefix);
		PB_FREE char *pin = pb_sprintf("%s/%s", dir, entry->d_name);

		if (strncmp(entry->d_name, prefix, len) == 0 && entry->d_name[len] &&
		    entry->d_name[len + strspn(entry->d_name + len, "0123456789")] == '\0' && pin &&
		    !pin_known(map->dp, pin))
			unlink(pin);
	}
	if (entries)
		closedir(entries);
}

void pb_reg_live(struct pb_reg_map *map)
{
	struct pb_reg_map *other, *dead = NULL;

	if (!map->pin)
		return;
	uv_mutex_lock(&map->dp->lock);
	if (!map->live)
		remove_unknown(map);
	map->live = true;
	/* One that nobody holds has no last reference that could be dropped. */
	for (other = map->dp->maps; other && !dead; other = other->next)
		if (other->pin && other->refs == 0 && !other->outgrown && reg_superseded(other))
			dead = other;
	if (dead)
		dead->refs++;
	uv_mutex_unlock(&map->dp->lock);
	pb_reg_put(map->dp, dead);
}

void pb_reg_set_flags(struct pb_dp *dp, struct pb_reg_map *map, uint32_t flags)
{
	uv_mutex_lock(&dp->lock);
	map->flags = flags;
	uv_mutex_unlock(&dp->lock);
}

void pb_reg_close_all(struct pb_dp *dp)
{
	while (dp->maps) {
		struct pb_reg_map *map = dp->maps;

		dp->maps = map->next;
		if (map->fresh)
			unlink(pin_now(map));
		reg_free(map);
	}
}
