/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics of plugins: kept by name over generations, so a reload loses no count.
 *
 * Owns a table that only grows, so that any thread may add to a metric without a lock.
 */
#include <plugin/private.h>

#include <inttypes.h>

static bool metric_name_valid(const char *name)
{
	return name && *name &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

/* patchbay_plugin_<plugin>_<name>; Prometheus knows no dashes. */
static char *metric_full_name(const char *plugin, const char *name)
{
	char *full = pb_sprintf("patchbay_plugin_%s_%s", plugin, name);

	for (char *p = full; p && *p; p++) {
		if (*p == '-')
			*p = '_';
	}
	return full;
}

static struct pb_metric *metric_get(struct pb_manager *m, uint32_t id)
{
	return id > 0 && id <= atomic_load(&m->n_metrics) ? atomic_load(&m->metrics[id - 1]) : NULL;
}

static uint32_t metric_find(struct pb_manager *m, const char *full)
{
	uint32_t n = atomic_load(&m->n_metrics);

	for (uint32_t i = 1; i <= n; i++) {
		if (strcmp(metric_get(m, i)->name, full) == 0)
			return i;
	}
	return 0;
}

static int metric_add_new(struct pb_generation *gen, uint32_t kind, char *full, const char *help)
{
	struct pb_manager *m = gen->manager;
	uint32_t n = atomic_load(&m->n_metrics);
	struct pb_metric *metric = n < PB_METRICS_MAX ? calloc(1, sizeof(*metric)) : NULL;

	if (!metric)
		return n < PB_METRICS_MAX ? -ENOMEM : -ENOSPC;
	metric->help = strdup(help ? help : "");
	if (!metric->help) {
		free(metric);
		return -ENOMEM;
	}
	metric->owner = gen->plugin;
	metric->kind = kind;
	metric->name = full;
	atomic_store(&m->metrics[n], metric);
	atomic_store(&m->n_metrics, n + 1);
	return (int)n + 1;
}

int pb_host_metric(struct pb_ctx *ctx, uint32_t kind, const char *name, const char *help,
		   uint32_t *ret_id)
{
	struct pb_generation *gen = pb_gen(ctx);
	struct pb_manager *m = gen->manager;
	PB_FREE char *full = NULL;
	uint32_t id;
	int rc;

	if (!metric_name_valid(name) || (kind != PB_METRIC_COUNTER && kind != PB_METRIC_GAUGE))
		return pb_err_set(&gen->fail, -EINVAL,
				  "metric(): names are lower case letters, digits and _, kinds are "
				  "counter and gauge");
	full = metric_full_name(gen->plugin->name, name);
	if (!full)
		return pb_err_set(&gen->fail, -ENOMEM, "metric(): out of memory");
	id = metric_find(m, full);
	if (id && metric_get(m, id)->kind != kind)
		return pb_err_set(&gen->fail, -EEXIST, "metric(): %s exists with another kind",
				  full);
	/* Dashes become underscores: "a" with "b_c" and "a-b" with "c" spell the same. */
	if (id && metric_get(m, id)->owner != gen->plugin)
		return pb_err_set(&gen->fail, -EEXIST, "metric(): %s belongs to plugin %s", full,
				  metric_get(m, id)->owner->name);
	if (!id) {
		rc = metric_add_new(gen, kind, full, help);
		if (rc < 0)
			return pb_err_set(&gen->fail, rc, "metric(): %s: %s", full, strerror(-rc));
		PB_TAKE_PTR(full);
		id = (uint32_t)rc;
	}
	*ret_id = id;
	return 0;
}

void pb_host_metric_add(struct pb_ctx *ctx, uint32_t id, uint64_t n)
{
	struct pb_metric *metric = metric_get(pb_gen(ctx)->manager, id);

	if (metric)
		atomic_fetch_add_explicit(&metric->value, n, memory_order_relaxed);
}

void pb_host_metric_set(struct pb_ctx *ctx, uint32_t id, uint64_t value)
{
	struct pb_metric *metric = metric_get(pb_gen(ctx)->manager, id);

	if (metric)
		atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

static int print_entry(const struct pb_plugin_entry *p, struct pb_buf *out)
{
	return pb_buf_printf(out,
			     "patchbay_plugin_loaded{plugin=\"%s\"} %d\n"
			     "patchbay_plugin_generation{plugin=\"%s\"} %u\n"
			     "patchbay_plugin_slow_callbacks_total{plugin=\"%s\"} %" PRIu64 "\n"
			     "patchbay_plugin_swap_seconds{plugin=\"%s\"} %.9f\n",
			     p->name, p->live != NULL, p->name, p->live ? p->live->number : 0,
			     p->name, p->slow_calls, p->name, (double)p->swap_ns / 1e9);
}

int pb_manager_metrics(struct pb_manager *m, struct pb_buf *out)
{
	uint32_t n = atomic_load(&m->n_metrics);
	struct pb_plugin_entry *p;
	int rc = 0;

	LL_FOREACH (m->plugins, p) {
		rc = print_entry(p, out);
		if (rc < 0)
			return rc;
	}
	for (uint32_t i = 1; i <= n && rc == 0; i++) {
		struct pb_metric *metric = metric_get(m, i);

		rc = pb_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n",
				   metric->name, metric->help, metric->name,
				   metric->kind == PB_METRIC_COUNTER ? "counter" : "gauge",
				   metric->name, atomic_load(&metric->value));
	}
	return rc;
}

void pb_host_metrics_free(struct pb_manager *m)
{
	uint32_t n = atomic_load(&m->n_metrics);

	for (uint32_t i = 1; i <= n; i++) {
		struct pb_metric *metric = metric_get(m, i);

		free(metric->name);
		free(metric->help);
		free(metric);
	}
	atomic_store(&m->n_metrics, 0);
}
