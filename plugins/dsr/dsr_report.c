/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs counted: by name, for metrics and for `dsr status`.
 *
 * Owns the names. They stand in the order of struct dsr_stats.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dsr.h"

static const struct {
	const char *name;
	const char *help;
} counters[] = {
	{"sent", "Packets sent on with the frontend in them"},
	{"arrived", "Packets that came with a frontend that is believed"},
	{"no_space", "Packets dropped because the frontend had no room in their header"},
	{"mtu", "Packets dropped and answered because they were too large with the frontend"},
	{"untrusted", "Packets that came with a frontend that isn't believed"},
	{"nat_missing", "Packets dropped because the translation of their flow is gone"},
	{"conflicts", "Packets dropped because two frontends had one tuple"},
	{"moved", "Flows whose client port had to move because two frontends had one tuple"},
	{"kept", "Packets whose option couldn't be taken out"},
};

_Static_assert(sizeof(counters) / sizeof(counters[0]) == DSR_COUNTERS, "a name for each");

const char *dsr_counter_name(size_t i)
{
	return i < DSR_COUNTERS ? counters[i].name : NULL;
}

const char *dsr_counter_help(size_t i)
{
	return i < DSR_COUNTERS ? counters[i].help : NULL;
}

int dsr_counters(struct pb_ctx *ctx, uint64_t ret_counters[DSR_COUNTERS])
{
	struct dsr *dsr = ctx->self;
	struct pb_map_info info = {.size = sizeof(info)};
	uint32_t zero = 0;
	uint64_t *all;
	int rc = ctx->host->map_info(dsr->stats, &info);

	memset(ret_counters, 0, DSR_COUNTERS * sizeof(*ret_counters));
	if (rc < 0)
		return rc;
	if (info.value_size != sizeof(struct dsr_stats))
		return -EPROTO;
	all = calloc(info.n_cpus, info.value_size);
	if (!all)
		return -ENOMEM;
	rc = ctx->host->map_lookup(dsr->stats, &zero, all);
	for (size_t i = 0; rc == 0 && i < info.n_cpus * DSR_COUNTERS; i++)
		ret_counters[i % DSR_COUNTERS] += all[i];
	free(all);
	return rc;
}

static int append(struct pb_ctx *ctx, struct pb_buf *out, const char *text)
{
	return ctx->host->buf_append(out, text, strlen(text));
}

int dsr_report_status(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out)
{
	const struct dsr *dsr = ctx->self;
	uint64_t values[DSR_COUNTERS];
	char line[192];
	int rc;

	(void)arg;
	(void)args;
	if (n_args > 0)
		return ctx->host->fail(ctx, -EINVAL, "dsr status takes no arguments");
	rc = dsr_counters(ctx, values);
	if (rc < 0)
		return ctx->host->fail(ctx, rc, "the counters can't be read: %s", strerror(-rc));
	snprintf(line, sizeof(line),
		 "{\"mode\":\"%s\",\"dispatch\":\"%s\",\"strip\":%s,\"node_addresses\":\"%s\"",
		 dsr_mode_name(dsr->config.mode), dsr_dispatch_name(dsr->config.dispatch),
		 dsr->config.strip ? "true" : "false", dsr->config.any_address ? "any" : "known");
	rc = append(ctx, out, line);
	for (size_t i = 0; rc == 0 && i < DSR_COUNTERS; i++) {
		snprintf(line, sizeof(line), ",\"%s\":%" PRIu64, counters[i].name, values[i]);
		rc = append(ctx, out, line);
	}
	return rc < 0 ? rc : append(ctx, out, "}");
}
