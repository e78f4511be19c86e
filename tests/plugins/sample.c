/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin that the lifecycle tests load: good by default, broken in one way for each macro.
 *
 * SAMPLE_VERSION, SAMPLE_SCHEMA, SAMPLE_SCHEMA_MIN, SAMPLE_REQUIRES, SAMPLE_NAME: the manifest.
 * FAIL_STEP, HANG_STEP, CRASH_STEP: the callback that misbehaves, by enum step.
 * LEAK_TIMER, CYCLE, LATE_SUBSCRIBE, UNKNOWN_SYMBOL, NEWER_HOST, LONG_WORK, SLOW: other ways.
 * RECONFIGURE: "step" of the configuration is what a packet counts; STEP_REFUSED is refused late,
 * STEP_WRONG sets a constant that no program can be loaded with.
 * KEEP_FD: "resumes" is how often a generation found the file that an earlier one kept.
 * SAMPLE_MAP_FLAGS: of its map. SAMPLE_BPF_LAYOUT, SAMPLE_BPF_REFUSED: another BPF object.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <patchbay/plugin.h>

#if defined(SAMPLE_BPF_LAYOUT)
#include <tests/plugins/sample_layout.skel.h>
#define ELF_BYTES sample_layout_bpf__elf_bytes
#elif defined(SAMPLE_BPF_REFUSED)
#include <tests/plugins/sample_refused.skel.h>
#define ELF_BYTES sample_refused_bpf__elf_bytes
#else
#include <tests/plugins/sample.skel.h>
#define ELF_BYTES sample_bpf__elf_bytes
#endif

enum step { NONE = 0, PREPARE, QUIESCE, SAVE, RESTORE, START, RESUME, STOP, RECONFIG };

#ifndef SAMPLE_NAME
#define SAMPLE_NAME "sample"
#endif
#ifndef SAMPLE_VERSION
#define SAMPLE_VERSION "1.0.0"
#endif
#ifndef SAMPLE_SCHEMA
#define SAMPLE_SCHEMA 1
#endif
#ifndef SAMPLE_SCHEMA_MIN
#define SAMPLE_SCHEMA_MIN 1
#endif
#ifndef SAMPLE_REQUIRES
#define SAMPLE_REQUIRES ""
#endif
#ifndef SAMPLE_MAP_FLAGS
#define SAMPLE_MAP_FLAGS PB_MAP_PERSISTENT
#endif
#ifndef FAIL_STEP
#define FAIL_STEP NONE
#endif
#ifndef HANG_STEP
#define HANG_STEP NONE
#endif
#ifndef CRASH_STEP
#define CRASH_STEP NONE
#endif

struct sample {
	struct pb_map *counts;
	unsigned reloads; /* travels in the saved state */
	unsigned resumes;
};

/* A host function that this agent doesn't have yet, as a plugin of a later SDK would ask for. */
struct newer_host {
	struct pb_host known;
	void (*from_the_future)(struct pb_ctx *ctx);
};

#ifdef UNKNOWN_SYMBOL
void patchbay_function_that_does_not_exist(void);
#endif

/* Volatile, so that the compiler doesn't see through it. */
static volatile int *volatile nowhere;

static int misbehave(struct pb_ctx *ctx, enum step step, const char *name)
{
	if (step == FAIL_STEP)
		return ctx->host->fail(ctx, -EINVAL, "told to fail in %s", name);
	if (step == HANG_STEP) {
		for (;;)
			pause();
	}
	if (step == CRASH_STEP)
		*nowhere = 1;
	return 0;
}

static int sample_command(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			  struct pb_buf *out)
{
	struct sample *self = ctx->self;
	uint32_t key = 0;
	uint64_t packets = 0;
	char text[200];
	int n;

	(void)arg;
	(void)args;
	(void)n_args;
	ctx->host->map_lookup(self->counts, &key, &packets);
	n = snprintf(text, sizeof(text),
		     "{\"version\":\"%s\",\"packets\":%llu,\"reloads\":%u,\"resumes\":%u}",
		     SAMPLE_VERSION, (unsigned long long)packets, self->reloads, self->resumes);
	return ctx->host->buf_append(out, text, (size_t)n);
}

static int declare_bpf(struct pb_ctx *ctx, struct sample *self)
{
	const struct pb_map_opts map = {.size = sizeof(map),
					.name = "sample_counts",
					.flags = SAMPLE_MAP_FLAGS};
	struct pb_bpf_object object = {.size = sizeof(object),
				       .name = "sample",
				       .maps = &map,
				       .n_maps = 1};
	struct pb_slot slot = {.size = sizeof(slot),
			       .hook = PB_HOOK_DEV_INGRESS,
			       .band = PB_BAND_SERVICE,
			       .name = SAMPLE_NAME,
			       .object = "sample",
			       .program = "sample_count"};
	int rc;

	object.elf = ELF_BYTES(&object.elf_len);
	rc = ctx->host->bpf_object(ctx, &object);
#ifdef CYCLE
	slot.after = "second";
#endif
	if (rc == 0)
		rc = ctx->host->slot(ctx, &slot);
#ifdef CYCLE
	slot.name = "second";
	slot.program = "sample_second";
	slot.after = SAMPLE_NAME;
	if (rc == 0)
		rc = ctx->host->slot(ctx, &slot);
#endif
	return rc ? rc : ctx->host->map(ctx, "sample_counts", &self->counts);
}

#if defined(LEAK_TIMER) || defined(SLOW)
static void on_timer(struct pb_ctx *ctx, void *arg)
{
	(void)arg;
#ifdef SLOW
	for (uint64_t end = ctx->host->now_ns() + 30000000; ctx->host->now_ns() < end;)
		;
#else
	(void)ctx;
#endif
}
#endif

#ifdef LATE_SUBSCRIBE
static void on_record(struct pb_ctx *ctx, void *arg, const struct pb_record *record)
{
	(void)ctx;
	(void)arg;
	(void)record;
}
#endif

#ifdef LONG_WORK
/* Runs until the file that the configuration names exists. */
static int long_work(void *arg)
{
	while (access(arg, F_OK) < 0)
		usleep(1000);
	return 7;
}

static void long_work_done(struct pb_ctx *ctx, void *arg, int result)
{
	ctx->host->log(ctx, PB_LOG_INFO, "work ended with %d", result);
	free(arg);
}

static char *work_file(struct pb_ctx *ctx)
{
	char path[256] = "";

	if (sscanf(ctx->host->config(ctx), "{\"until\":\"%255[^\"]\"}", path) != 1)
		return NULL;
	return strdup(path);
}
#endif

static int sample_prepare(struct pb_ctx *ctx)
{
	struct pb_command command = {.size = sizeof(command),
				     .name = SAMPLE_NAME " info",
				     .usage = "",
				     .help = "version and packets",
				     .fn = sample_command};
	struct sample *self;
	int rc;

#ifdef UNKNOWN_SYMBOL
	patchbay_function_that_does_not_exist();
#endif
#ifdef NEWER_HOST
	/* PB_HOST_HAS(ctx->host, from_the_future), as that SDK would spell it. */
	if (ctx->host->size < sizeof(struct newer_host))
		return ctx->host->fail(ctx, -ENOTSUP,
				       "needs the host function from_the_future, which this agent "
				       "(plugin ABI %u.%u) doesn't have: update the agent",
				       ctx->host->abi_major, ctx->host->abi_minor);
#endif
	rc = misbehave(ctx, PREPARE, "prepare");
	if (rc < 0)
		return rc;
	self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	rc = declare_bpf(ctx, self);
	if (rc == 0)
		rc = ctx->host->command(ctx, &command);
	command.name = SAMPLE_NAME " status";
	if (rc == 0)
		rc = ctx->host->command(ctx, &command);
	if (rc < 0) {
		free(self);
		return rc;
	}
	ctx->self = self;
	return 0;
}

static int sample_quiesce(struct pb_ctx *ctx)
{
	return misbehave(ctx, QUIESCE, "quiesce");
}

static int sample_save(struct pb_ctx *ctx, struct pb_buf *out)
{
	struct sample *self = ctx->self;
	int rc = misbehave(ctx, SAVE, "save");

	return rc ? rc : ctx->host->buf_append(out, &self->reloads, sizeof(self->reloads));
}

static int sample_restore(struct pb_ctx *ctx, const struct pb_state *in)
{
	struct sample *self = ctx->self;
	int rc = misbehave(ctx, RESTORE, "restore");

	if (rc == 0 && in->len != sizeof(self->reloads))
		rc = ctx->host->fail(ctx, -EINVAL, "saved state has %zu bytes", in->len);
	if (rc == 0) {
		memcpy(&self->reloads, in->data, sizeof(self->reloads));
		self->reloads++;
	}
	return rc;
}

#ifdef KEEP_FD
/* A file without a name, which holds how many generations found it. */
static int count_in_kept_file(struct pb_ctx *ctx)
{
	struct sample *self = ctx->self;
	int fd, rc = ctx->host->fd_kept(ctx, "file", &fd);

	if (rc == -ENOENT) {
		fd = memfd_create("sample", MFD_CLOEXEC);
		rc = ctx->host->fd_keep(ctx, "file", fd);
	} else if (rc == 0) {
		if (pread(fd, &self->resumes, sizeof(self->resumes), 0) < 0)
			rc = -EIO;
		self->resumes++;
	}
	if (rc == 0 && pwrite(fd, &self->resumes, sizeof(self->resumes), 0) < 0)
		rc = -EIO;
	close(fd);
	return rc;
}
#endif

static int sample_start(struct pb_ctx *ctx)
{
#if defined(LEAK_TIMER)
	ctx->host->timer_start(ctx, 60000, 60000, on_timer, NULL, NULL);
#elif defined(SLOW)
	ctx->host->timer_start(ctx, 1, 0, on_timer, NULL, NULL);
#endif
#ifdef KEEP_FD
	return count_in_kept_file(ctx);
#endif
#ifdef LATE_SUBSCRIBE
	return ctx->host->subscribe(ctx, "topic", 1, on_record, NULL);
#endif
#ifdef LONG_WORK
	char *path = work_file(ctx);

	if (!path)
		return ctx->host->fail(ctx, -EINVAL, "configuration lacks \"until\"");
	return ctx->host->work(ctx, long_work, long_work_done, path);
#endif
	return misbehave(ctx, START, "start");
}

static void sample_resume(struct pb_ctx *ctx)
{
	struct sample *self = ctx->self;

	self->resumes++;
	misbehave(ctx, RESUME, "resume");
}

static void sample_stop(struct pb_ctx *ctx)
{
	misbehave(ctx, STOP, "stop");
	free(ctx->self);
}

#ifdef RECONFIGURE
#define STEP_REFUSED 66
#define STEP_WRONG 77

static int sample_reconfigure(struct pb_ctx *ctx, const char *config)
{
	uint64_t by64 = 0;
	uint32_t by = 0;
	int rc = misbehave(ctx, RECONFIG, "reconfigure");

	if (rc == 0 && strcmp(config, "{}") == 0)
		by = 1;
	else if (rc == 0 && sscanf(config, "{\"step\":%u}", &by) != 1)
		rc = -ENOTSUP;
	if (rc == 0 && by == STEP_WRONG)
		return ctx->host->bpf_const(ctx, "sample", "sample_step", &by64, sizeof(by64));
	if (rc == 0)
		rc = ctx->host->bpf_const(ctx, "sample", "sample_step", &by, sizeof(by));
	return rc == 0 && by == STEP_REFUSED ? ctx->host->fail(ctx, -ERANGE, "66 is too much") : rc;
}
#define RECONFIGURE_FN sample_reconfigure
#else
#define RECONFIGURE_FN NULL
#endif

#if defined(ABI_MAJOR)
#undef PB_ABI_MAJOR
#define PB_ABI_MAJOR ABI_MAJOR
#endif
#if defined(ABI_MINOR)
#undef PB_ABI_MINOR
#define PB_ABI_MINOR ABI_MINOR
#endif

#ifndef SAMPLE_FLAGS
#define SAMPLE_FLAGS 0
#endif

PB_PLUGIN_FULL(SAMPLE_NAME, SAMPLE_VERSION, SAMPLE_SCHEMA, SAMPLE_SCHEMA_MIN, SAMPLE_REQUIRES,
	       .prepare = sample_prepare, .quiesce = sample_quiesce, .save = sample_save,
	       .restore = sample_restore, .start = sample_start, .resume = sample_resume,
	       .stop = sample_stop, .flags = SAMPLE_FLAGS, .reconfigure = RECONFIGURE_FN);
