/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host->fd_keep(), fd_kept() and fd_drop(): file descriptors that outlive a generation.
 *
 * Owns the duplicates; they belong to the plugin, not to a generation, and go when it is unloaded.
 * What a plugin passes or gets is its own.
 */
#include <plugin/private.h>

#include <fcntl.h>

static struct pb_kept_fd *kept_find(struct pb_generation *gen, const char *name)
{
	struct pb_kept_fd *k;

	HASH_FIND_STR(gen->plugin->kept, name, k);
	return k;
}

static void kept_free(struct pb_plugin_entry *plugin, struct pb_kept_fd *k)
{
	HASH_DEL(plugin->kept, k);
	close(k->fd);
	free(k->name);
	free(k);
}

/* start() is the first callback of a generation that is live. */
static int may_change(struct pb_generation *gen, const char *function)
{
	if (gen->state != PB_GEN_LIVE && gen->state != PB_GEN_QUIESCED)
		return pb_host_wrong_step(gen, function, "from start() until stop()");
	return 0;
}

static int kept_new(struct pb_generation *gen, const char *name, int fd)
{
	struct pb_kept_fd *k;

	if (HASH_COUNT(gen->plugin->kept) >= PB_KEPT_MAX)
		return pb_err_set(&gen->fail, -EMFILE,
				  "fd_keep(): %s: %d are kept already; drop those that are no "
				  "longer used",
				  name, PB_KEPT_MAX);
	k = calloc(1, sizeof(*k));
	if (k)
		k->name = strdup(name);
	if (!k || !k->name) {
		free(k);
		return pb_err_set(&gen->fail, -ENOMEM, "fd_keep(): out of memory");
	}
	k->fd = fd;
	HASH_ADD_KEYPTR(hh, gen->plugin->kept, k->name, strlen(k->name), k);
	return 0;
}

int pb_host_fd_keep(struct pb_ctx *ctx, const char *name, int fd)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_kept_fd *k;
	int rc = may_change(gen, "fd_keep()");
	int copy;

	if (rc < 0)
		return rc;
	if (!name || !*name)
		return pb_err_set(&gen->fail, -EINVAL, "fd_keep(): a name must be given");
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return pb_err_set(&gen->fail, -errno, "fd_keep(): %s: %s", name, strerror(errno));
	k = kept_find(gen, name);
	if (k) {
		close(k->fd);
		k->fd = copy;
		return 0;
	}
	rc = kept_new(gen, name, copy);
	if (rc < 0)
		close(copy);
	return rc;
}

int pb_host_fd_kept(struct pb_ctx *ctx, const char *name, int *ret_fd)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_kept_fd *k = name ? kept_find(gen, name) : NULL;
	int copy;

	if (!k)
		return pb_err_set(&gen->fail, -ENOENT, "fd_kept(): nothing is kept as %s",
				  name ? name : "NULL");
	copy = fcntl(k->fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return pb_err_set(&gen->fail, -errno, "fd_kept(): %s: %s", name, strerror(errno));
	*ret_fd = copy;
	return 0;
}

int pb_host_fd_drop(struct pb_ctx *ctx, const char *name)
{
	struct pb_generation *gen = pb_gen(ctx);
	int rc = may_change(gen, "fd_drop()");
	struct pb_kept_fd *k;

	if (rc < 0)
		return rc;
	k = name ? kept_find(gen, name) : NULL;
	if (!k)
		return pb_err_set(&gen->fail, -ENOENT, "fd_drop(): nothing is kept as %s",
				  name ? name : "NULL");
	kept_free(gen->plugin, k);
	return 0;
}

void pb_host_kept_free(struct pb_plugin_entry *plugin)
{
	struct pb_kept_fd *k, *next;

	HASH_ITER (hh, plugin->kept, k, next)
		kept_free(plugin, k);
}
