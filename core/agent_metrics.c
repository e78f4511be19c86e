/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names, help texts and the fields they are read from, in tables; every value of a family stands
 * together, as the format wants it.
 */
#include <agent_metrics.h>

#include <base/prom.h>
#include <patchbay/abi.h>

#define STRING2(x_) #x_
#define STRING(x_) STRING2(x_)

/* ---- the process ---- */

static int put_info(struct pb_buf *out)
{
	const struct pb_prom_label labels[] = {
		{"version", PACKAGE_VERSION},
		{"abi", STRING(PB_ABI_MAJOR) "." STRING(PB_ABI_MINOR)},
	};
	int rc = pb_prom_family(out, "patchbay_build_info", PB_PROM_GAUGE,
				"Version of the agent and of the plugin ABI it offers.");

	return rc < 0 ? rc
		      : pb_prom_value(out, "patchbay_build_info", labels, PB_ARRAY_LEN(labels), 1);
}

static int put_process(const struct pb_agent_metrics *m, struct pb_buf *out)
{
	const struct {
		const char *name, *type, *help;
		double value;
	} singles[] = {
		{"patchbay_ready", PB_PROM_GAUGE, "1 while /readyz says 200.", m->ready},
		{"patchbay_config_refused", PB_PROM_GAUGE,
		 "1 while the configuration file is not the one in force.", m->config_refused},
		{"patchbay_uptime_seconds", PB_PROM_GAUGE, "Since the agent's process started.",
		 m->uptime_s},
		{"process_start_time_seconds", PB_PROM_GAUGE,
		 "When the process started, since the epoch.", m->started_s},
		{"process_cpu_seconds_total", PB_PROM_COUNTER,
		 "CPU time of the process, user and system.", m->cpu_s},
		{"process_resident_memory_bytes", PB_PROM_GAUGE, "Memory in RAM.", m->rss_bytes},
		{"patchbay_loop_turns_total", PB_PROM_COUNTER,
		 "Turns of the event loop since the agent was ready.", m->loop_turns},
		{"patchbay_loop_turn_p99_seconds", PB_PROM_GAUGE, "99 of 100 turns were as short.",
		 m->loop_p99_s},
		{"patchbay_loop_turn_max_seconds", PB_PROM_GAUGE, "The longest turn.",
		 m->loop_max_s},
		{"patchbay_control_peers", PB_PROM_GAUGE, "Connections to the control socket.",
		 m->control_peers},
		{"patchbay_control_requests_total", PB_PROM_COUNTER,
		 "Commands that came over the control socket.", m->control_requests},
		{"patchbay_local_endpoints", PB_PROM_GAUGE, "Pods of this node with an endpoint.",
		 m->endpoints},
		{"patchbay_identities", PB_PROM_GAUGE, "Identities of pods in use.",
		 m->peers.identities},
		{"patchbay_identities_max", PB_PROM_GAUGE, "Numbers there are for them.",
		 m->peers.identities_max},
		{"patchbay_pods_without_identity", PB_PROM_GAUGE,
		 "Pods for which there was no number.", m->peers.pods_without_identity},
		{"patchbay_ipcache_waiting", PB_PROM_GAUGE,
		 "Addresses for which the ipcache had no room.", m->peers.ipcache_waiting},
	};
	int rc = put_info(out);

	for (size_t i = 0; i < PB_ARRAY_LEN(singles) && rc == 0; i++)
		rc = pb_prom_single(out, singles[i].name, singles[i].type, singles[i].help,
				    singles[i].value);
	return rc;
}

/* ---- families with a value for each item of a list ---- */

struct family {
	const char *name, *type, *help;
	const char *field;
	const char *is; /* the value is 1 when the field is this text, else 0; NULL: a number */
};

/* Items that lack the field have no value. */
static int put_item(const struct family *f, const char *label, const cJSON *item,
		    struct pb_buf *out)
{
	const cJSON *field = cJSON_GetObjectItemCaseSensitive(item, f->field);
	const struct pb_prom_label labels[] = {{label, pb_json_str(item, label, "")}};
	double value;

	if (f->is)
		value = strcmp(pb_json_str(item, f->field, ""), f->is) == 0;
	else if (cJSON_IsBool(field))
		value = cJSON_IsTrue(field);
	else if (cJSON_IsNumber(field))
		value = field->valuedouble;
	else
		return 0;
	return pb_prom_value(out, f->name, labels, 1, value);
}

static int put_families(const struct family *families, size_t n, const char *label,
			const cJSON *items, struct pb_buf *out)
{
	const cJSON *item;
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = pb_prom_family(out, families[i].name, families[i].type, families[i].help);
		cJSON_ArrayForEach (item, items) {
			if (rc == 0)
				rc = put_item(&families[i], label, item, out);
		}
	}
	return rc;
}

static int put_kubernetes(const cJSON *status, struct pb_buf *out)
{
	static const struct family families[] = {
		{"patchbay_kube_synced", PB_PROM_GAUGE,
		 "1 once the first full list of a kind is in.", "state", "synced"},
		{"patchbay_kube_healthy", PB_PROM_GAUGE,
		 "0 while a kind that is wanted can't be followed.", "healthy", NULL},
		{"patchbay_kube_objects", PB_PROM_GAUGE, "Objects in the store.", "objects", NULL},
		{"patchbay_kube_events_total", PB_PROM_COUNTER, "Changes of objects.", "events",
		 NULL},
		{"patchbay_kube_relists_total", PB_PROM_COUNTER, "Full lists after the first.",
		 "relists", NULL},
		{"patchbay_kube_received_bytes_total", PB_PROM_COUNTER,
		 "Bytes that the source sent for a kind, uncompressed.", "bytes", NULL},
		{"patchbay_kube_refused_objects_total", PB_PROM_COUNTER,
		 "Objects that could not be decoded.", "refused", NULL},
		{"patchbay_kube_last_event_age_seconds", PB_PROM_GAUGE,
		 "Since the source last said anything of a kind.", "last_event_seconds", NULL},
	};

	return put_families(families, PB_ARRAY_LEN(families), "kind",
			    cJSON_GetObjectItem(status, "kinds"), out);
}

static int put_maps(const cJSON *table, struct pb_buf *out)
{
	static const struct family families[] = {
		{"patchbay_map_max_entries", PB_PROM_GAUGE, "The most entries a map takes.",
		 "max_entries", NULL},
		{"patchbay_map_bytes", PB_PROM_GAUGE, "Kernel memory of a map.", "bytes", NULL},
	};

	return put_families(families, PB_ARRAY_LEN(families), "name",
			    cJSON_GetObjectItem(table, "items"), out);
}

/* ---- the datapath ---- */

static int put_verdicts(const cJSON *hooks, struct pb_buf *out)
{
	static const char *const verdicts[] = {"pass", "drop", "redirect"};
	const char *const name = "patchbay_datapath_verdicts_total";
	const cJSON *item;
	int rc = pb_prom_family(out, name, PB_PROM_COUNTER, "How chains ended.");

	cJSON_ArrayForEach (item, hooks) {
		for (size_t i = 0; i < PB_ARRAY_LEN(verdicts) && rc == 0; i++) {
			const struct pb_prom_label labels[] = {{"hook",
								pb_json_str(item, "hook", "")},
							       {"verdict", verdicts[i]}};

			rc = pb_prom_value(out, name, labels, PB_ARRAY_LEN(labels),
					   pb_json_num(item, verdicts[i], 0));
		}
	}
	return rc;
}

static int put_drops(const cJSON *drops, struct pb_buf *out)
{
	const char *const name = "patchbay_datapath_drops_total";
	const cJSON *item;
	int rc = pb_prom_family(out, name, PB_PROM_COUNTER,
				"Packets dropped and calls refused, by reason.");

	cJSON_ArrayForEach (item, drops) {
		const struct pb_prom_label labels[] = {{"hook", pb_json_str(item, "hook", "")},
						       {"reason", pb_json_str(item, "reason", "")}};

		if (rc == 0)
			rc = pb_prom_value(out, name, labels, PB_ARRAY_LEN(labels),
					   pb_json_num(item, "packets", 0));
	}
	return rc;
}

static int put_datapath(const cJSON *status, struct pb_buf *out)
{
	static const struct family families[] = {
		{"patchbay_datapath_packets_total", PB_PROM_COUNTER,
		 "Frames on a tc hook, calls on a socket hook.", "packets", NULL},
		{"patchbay_datapath_bytes_total", PB_PROM_COUNTER, "Bytes of the frames.", "bytes",
		 NULL},
		{"patchbay_datapath_missed_calls_total", PB_PROM_COUNTER,
		 "Empty slots that a packet met: always a bug.", "missed", NULL},
		{"patchbay_datapath_chain_generation", PB_PROM_GAUGE,
		 "Number of the chain that runs on a hook.", "generation", NULL},
	};
	const cJSON *hooks = cJSON_GetObjectItem(status, "hooks");
	int rc = put_families(families, PB_ARRAY_LEN(families), "hook", hooks, out);

	if (rc == 0)
		rc = put_verdicts(hooks, out);
	return rc < 0 ? rc : put_drops(cJSON_GetObjectItem(status, "drops"), out);
}

/* ---- connection tracking ---- */

static int put_conntrack(const struct pb_ct_counts *c, struct pb_buf *out)
{
	const struct {
		const char *name, *type, *help;
		double value;
	} singles[] = {
		{"patchbay_conntrack_entries", PB_PROM_GAUGE,
		 "Entries that the last run of the clean-up left.", c->entries},
		{"patchbay_conntrack_max_entries", PB_PROM_GAUGE, "Room for entries.",
		 c->max_entries},
		{"patchbay_conntrack_created_total", PB_PROM_COUNTER, "Flows begun.",
		 (double)c->flows.created},
		{"patchbay_conntrack_full_total", PB_PROM_COUNTER,
		 "Flows dropped because there was no room.", (double)c->flows.full},
		{"patchbay_conntrack_no_port_total", PB_PROM_COUNTER,
		 "Flows dropped because no source port was free.", (double)c->flows.no_port},
		{"patchbay_conntrack_port_collisions_total", PB_PROM_COUNTER,
		 "Source ports tried and found taken.", (double)c->flows.collisions},
		{"patchbay_conntrack_gc_runs_total", PB_PROM_COUNTER, "Runs of the clean-up.",
		 (double)c->runs},
		{"patchbay_conntrack_gc_deleted_total", PB_PROM_COUNTER,
		 "Entries that had expired and were deleted.", (double)c->deleted},
		{"patchbay_conntrack_gc_orphans_total", PB_PROM_COUNTER,
		 "Of those, entries whose other half was missing.", (double)c->orphans},
		{"patchbay_conntrack_gc_duration_seconds", PB_PROM_GAUGE,
		 "How long the last run took.", (double)c->last_run_ns / 1e9},
		{"patchbay_conntrack_gc_interval_seconds", PB_PROM_GAUGE, "Until the next run.",
		 c->interval_s},
	};
	int rc = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(singles) && rc == 0; i++)
		rc = pb_prom_single(out, singles[i].name, singles[i].type, singles[i].help,
				    singles[i].value);
	return rc;
}

int pb_agent_metrics_write(const struct pb_agent_metrics *m, struct pb_buf *out)
{
	int rc = put_process(m, out);

	if (rc == 0)
		rc = put_conntrack(&m->ct, out);
	if (rc == 0)
		rc = put_kubernetes(m->kubernetes, out);
	if (rc == 0)
		rc = put_datapath(m->datapath, out);
	return rc < 0 ? rc : put_maps(m->maps, out);
}
