/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics of plugins: kept by name over generations, so a reload loses no count.
 *
 * Owns a table that only grows, so that any thread may add to a metric without a lock.
 */
#include <base/prom.h>
#include <plugin/private.h>

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

static double entry_loaded(const struct pb_plugin_entry *p)
{
	return p->live != NULL;
}

static double entry_failed(const struct pb_plugin_entry *p)
{
	return p->failed || p->left_out;
}

static double entry_generation(const struct pb_plugin_entry *p)
{
	return p->live ? p->live->number : 0;
}

static double entry_slow_calls(const struct pb_plugin_entry *p)
{
	return (double)p->slow_calls;
}

static double entry_swap(const struct pb_plugin_entry *p)
{
	return (double)p->swap_ns / 1e9;
}

/* What the room says of every plugin. */
static const struct {
	const char *name, *type, *help;
	double (*value)(const struct pb_plugin_entry *p);
} own[] = {
	{"patchbay_plugin_loaded", PB_PROM_GAUGE, "1 while a generation serves.", entry_loaded},
	{"patchbay_plugin_failed", PB_PROM_GAUGE, "1 while it should be loaded and can't be.",
	 entry_failed},
	{"patchbay_plugin_generation", PB_PROM_GAUGE, "Number of the generation that serves.",
	 entry_generation},
	{"patchbay_plugin_slow_callbacks_total", PB_PROM_COUNTER,
	 "Callbacks that ran longer than 10 ms.", entry_slow_calls},
	{"patchbay_plugin_swap_seconds", PB_PROM_GAUGE,
	 "How long events were held back at the last load or reload.", entry_swap},
};

static bool is_own(const char *full)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(own); i++) {
		if (strcmp(own[i].name, full) == 0)
			return true;
	}
	return false;
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
	if (is_own(full))
		return pb_err_set(&gen->fail, -EEXIST, "metric(): %s belongs to the agent", full);
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

static int put_own(struct pb_manager *m, size_t i, struct pb_buf *out)
{
	struct pb_plugin_entry *p;
	int rc = pb_prom_family(out, own[i].name, own[i].type, own[i].help);

	LL_FOREACH (m->plugins, p) {
		const struct pb_prom_label label = {"plugin", p->name};

		if (rc == 0)
			rc = pb_prom_value(out, own[i].name, &label, 1, own[i].value(p));
	}
	return rc;
}

int pb_manager_metrics(struct pb_manager *m, struct pb_buf *out)
{
	uint32_t n = atomic_load(&m->n_metrics);
	int rc = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(own) && rc == 0; i++)
		rc = put_own(m, i, out);
	for (uint32_t i = 1; i <= n && rc == 0; i++) {
		struct pb_metric *metric = metric_get(m, i);

		rc = pb_prom_single(out, metric->name,
				    metric->kind == PB_METRIC_COUNTER ? PB_PROM_COUNTER
								      : PB_PROM_GAUGE,
				    metric->help, (double)atomic_load(&metric->value));
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
