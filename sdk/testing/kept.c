/* SPDX-License-Identifier: Apache-2.0 */
/* File descriptors that outlive a generation, in the fake host: duplicates, as the agent's. */
#include <fcntl.h>

#include "fake.h"

#define KEPT_MAX 1024

static struct fake_kept *kept_find(const struct pb_fake *fake, const char *name)
{
	struct fake_kept *kept;

	LL_FOREACH (fake->kept, kept)
		if (strcmp(kept->name, name) == 0)
			return kept;
	return NULL;
}

static void kept_free(struct pb_fake *fake, struct fake_kept *kept)
{
	LL_DELETE(fake->kept, kept);
	close(kept->fd);
	free(kept->name);
	free(kept);
}

static int may_change(struct fake_gen *gen, const char *function)
{
	if (!gen->started || gen->stopping)
		return gen->ctx.host->fail(&gen->ctx, -EPERM,
					   "%s() may be called from start() until stop()",
					   function);
	return fake_fault(gen->fake, function);
}

static int kept_new(struct pb_fake *fake, const char *name, int fd)
{
	struct fake_kept *kept;
	unsigned n = 0;

	LL_COUNT(fake->kept, kept, n);
	if (n >= KEPT_MAX)
		return -EMFILE;
	kept = calloc(1, sizeof(*kept));
	if (kept)
		kept->name = strdup(name);
	if (!kept || !kept->name) {
		free(kept);
		return -ENOMEM;
	}
	kept->fd = fd;
	LL_PREPEND(fake->kept, kept);
	return 0;
}

int fake_host_fd_keep(struct pb_ctx *ctx, const char *name, int fd)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_kept *kept;
	int rc = may_change(gen, "fd_keep");
	int copy;

	if (rc < 0)
		return rc;
	if (!name || !*name)
		return ctx->host->fail(ctx, -EINVAL, "fd_keep(): a name must be given");
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return ctx->host->fail(ctx, -errno, "fd_keep(): %s: %s", name, strerror(errno));
	kept = kept_find(gen->fake, name);
	if (kept) {
		close(kept->fd);
		kept->fd = copy;
		return 0;
	}
	rc = kept_new(gen->fake, name, copy);
	if (rc == 0)
		return 0;
	close(copy);
	return ctx->host->fail(ctx, rc, "fd_keep(): %s: %s", name, strerror(-rc));
}

int fake_host_fd_kept(struct pb_ctx *ctx, const char *name, int *ret_fd)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	struct fake_kept *kept = name ? kept_find(gen->fake, name) : NULL;
	int rc = fake_fault(gen->fake, "fd_kept");
	int copy;

	if (rc < 0)
		return rc;
	if (!kept)
		return ctx->host->fail(ctx, -ENOENT, "fd_kept(): nothing is kept as %s",
				       name ? name : "NULL");
	copy = fcntl(kept->fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return ctx->host->fail(ctx, -errno, "fd_kept(): %s: %s", name, strerror(errno));
	*ret_fd = copy;
	return 0;
}

int fake_host_fd_drop(struct pb_ctx *ctx, const char *name)
{
	struct fake_gen *gen = fake_gen_of(ctx);
	int rc = may_change(gen, "fd_drop");
	struct fake_kept *kept;

	if (rc < 0)
		return rc;
	kept = name ? kept_find(gen->fake, name) : NULL;
	if (!kept)
		return ctx->host->fail(ctx, -ENOENT, "fd_drop(): nothing is kept as %s",
				       name ? name : "NULL");
	kept_free(gen->fake, kept);
	return 0;
}

void fake_kept_free(struct pb_fake *fake)
{
	while (fake->kept)
		kept_free(fake, fake->kept);
}

uint32_t pb_fake_kept(const struct pb_fake *fake)
{
	const struct fake_kept *kept;
	uint32_t n = 0;

	LL_COUNT(fake->kept, kept, n);
	return n;
}
