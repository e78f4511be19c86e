/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The function table that plugins call.
 *
 * Owns struct pb_host itself and the functions that belong to no other file. A plugin's ctx is
 * the first member of its generation, so the host finds the generation without a lookup.
 */
#include <plugin/private.h>

int pb_host_wrong_step(struct pb_generation *gen, const char *function, const char *steps)
{
	return pb_err_set(&gen->fail, -EPERM, "%s may be called %s", function, steps);
}

static bool all_zero(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

int pb_host_opts(void *ret_opts, size_t len, size_t len_1_0, const void *opts)
{
	uint32_t size = 0; /* every options structure starts with its size */

	if (opts)
		memcpy(&size, opts, sizeof(size));
	if (size < len_1_0 || (size > len && !all_zero((const char *)opts + len, size - len)))
		return -EINVAL;
	memset(ret_opts, 0, len);
	memcpy(ret_opts, opts, size < len ? size : len);
	return 0;
}

static void PB_PRINTF(3, 4) host_log(struct pb_ctx *ctx, uint32_t level, const char *fmt, ...)
{
	struct pb_generation *gen = pb_gen(ctx);
	char component[PB_NAME_MAX + 24];
	va_list ap;

	if (!pb_log_enabled(level > PB_LOG_DEBUG ? PB_LOG_DEBUG : level))
		return;
	snprintf(component, sizeof(component), "plugin:%s/%u", gen->plugin->name, gen->number);
	va_start(ap, fmt);
	pb_logv(level, component, fmt, ap);
	va_end(ap);
}

static int PB_PRINTF(3, 4) host_fail(struct pb_ctx *ctx, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pb_err_setv(&pb_gen(ctx)->fail, err, fmt, ap);
	va_end(ap);
	return err;
}

static const char *host_config(struct pb_ctx *ctx)
{
	return pb_gen(ctx)->configs->json;
}

static const char *host_node_name(struct pb_ctx *ctx)
{
	return pb_gen(ctx)->manager->node_name;
}

const struct pb_host pb_host_table = {
	.size = sizeof(struct pb_host),
	.abi_major = PB_ABI_MAJOR,
	.abi_minor = PB_ABI_MINOR,
	.log = host_log,
	.fail = host_fail,
	.config = host_config,
	.node_name = host_node_name,
	.bpf_object = pb_host_bpf_object,
	.bpf_const = pb_host_bpf_const,
	.slot = pb_host_slot_add,
	.map = pb_host_map_open,
	.map_info = pb_dp_map_info,
	.map_lookup = pb_dp_map_lookup,
	.map_update = pb_dp_map_update,
	.map_delete = pb_dp_map_delete,
	.map_next = pb_dp_map_next,
	.map_update_batch = pb_dp_map_update_batch,
	.map_delete_batch = pb_dp_map_delete_batch,
	.event_type = pb_host_event_type,
	.event_subscribe = pb_host_event_subscribe,
	.publish = pb_host_publish,
	.withdraw = pb_host_withdraw,
	.synced = pb_host_synced,
	.subscribe = pb_host_subscribe,
	.kube_watch = pb_host_kube_watch,
	.timer_start = pb_host_timer_start,
	.timer_stop = pb_host_timer_stop,
	.fd_watch = pb_host_fd_watch,
	.fd_unwatch = pb_host_fd_unwatch,
	.work = pb_host_work_start,
	.metric = pb_host_metric,
	.metric_add = pb_host_metric_add,
	.metric_set = pb_host_metric_set,
	.command = pb_host_command,
	.buf_append = pb_buf_append,
	.now_ns = pb_now_ns,
	.kube_watch_open = pb_host_kube_open,
	.kube_watch_close = pb_host_kube_close,
	.map_memory = pb_dp_map_memory,
	.cidr_hold = pb_host_cidr_hold,
	.cidr_release = pb_host_cidr_release,
	.fd_keep = pb_host_fd_keep,
	.fd_kept = pb_host_fd_kept,
	.fd_drop = pb_host_fd_drop,
};
