/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crash records: RUN_DIR/state/crash-PLUGIN-HASH.json, one for each file that ever crashed.
 *
 * Owns the count by which a file is left out. A record that can't be read counts as no crash,
 * for a damaged record must never keep the agent from starting.
 */
#include <plugin/crash.h>

#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <time.h>

#include <base/json.h>
#include <plugin/crash_page.h>

#define RECORD_MAX 4096
#define FORGET_S (24 * 3600) /* a crash so much later starts the count anew */

static char *record_path(const char *run_dir, const char *plugin, uint64_t hash)
{
	return pb_sprintf("%s/state/crash-%s-%016" PRIx64 ".json", run_dir, plugin, hash);
}

static struct pb_crash_record *parse_record(const char *text, double *ret_time)
{
	PB_JSON_FREE cJSON *json = cJSON_Parse(text);
	const char *hash = pb_json_str(json, "hash", NULL);
	struct pb_crash_record *r = hash ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return NULL;
	snprintf(r->plugin, sizeof(r->plugin), "%s", pb_json_str(json, "plugin", ""));
	snprintf(r->text, sizeof(r->text), "%s", pb_json_str(json, "text", ""));
	r->hash = strtoull(hash, NULL, 16);
	r->count = (unsigned)pb_json_num(json, "count", 0);
	r->fresh = pb_json_bool(json, "fresh", false);
	if (ret_time)
		*ret_time = pb_json_num(json, "time", 0);
	return r;
}

static struct pb_crash_record *read_record(const char *path, double *ret_time)
{
	PB_BUF_FREE struct pb_buf buf = {0};

	if (pb_file_read(path, RECORD_MAX, &buf, NULL) < 0)
		return NULL;
	return parse_record(buf.data, ret_time);
}

static int write_record(const char *path, const struct pb_crash_record *r, double when,
			struct pb_err *err)
{
	PB_JSON_FREE cJSON *json = cJSON_CreateObject();
	PB_FREE char *hash = pb_sprintf("%016" PRIx64, r->hash);
	PB_FREE char *text = NULL;

	cJSON_AddStringToObject(json, "plugin", r->plugin);
	cJSON_AddStringToObject(json, "hash", hash ? hash : "");
	cJSON_AddNumberToObject(json, "count", r->count);
	cJSON_AddNumberToObject(json, "time", when);
	cJSON_AddBoolToObject(json, "fresh", r->fresh);
	cJSON_AddStringToObject(json, "text", r->text);
	text = cJSON_PrintUnformatted(json);
	if (!text)
		return pb_err_set(err, -ENOMEM, "%s: out of memory", path);
	return pb_file_write(path, text, strlen(text), 0600, err);
}

static void describe(const struct pb_crash_page *page, struct pb_crash_record *r)
{
	const char *step = pb_crash_step_name((enum pb_crash_step)page->step);
	uint32_t cause = atomic_load(&page->cause);

	if (cause == PB_CRASH_HANG)
		snprintf(r->text, sizeof(r->text), "%s ran longer than %u ms", step,
			 page->deadline_ms);
	else
		snprintf(r->text, sizeof(r->text), "%s crashed with signal %u (%s)", step, cause,
			 strsignal((int)cause));
}

static int count_crash(const struct pb_crash_page *page, const char *run_dir, struct pb_err *err)
{
	const struct pb_crash_culprit *c = &page->culprits[page->culprit - 1];
	struct pb_crash_record r = {.hash = c->hash, .count = 1, .fresh = true};
	PB_FREE struct pb_crash_record *before = NULL;
	PB_FREE char *path = NULL;
	double now = (double)time(NULL), then = 0;

	snprintf(r.plugin, sizeof(r.plugin), "%.*s", PB_NAME_MAX - 1, c->plugin);
	if (!r.plugin[0] || strchr(r.plugin, '/'))
		return 0;
	path = record_path(run_dir, r.plugin, r.hash);
	if (!path)
		return pb_err_set(err, -ENOMEM, "out of memory");
	before = read_record(path, &then);
	if (before && now - then < FORGET_S)
		r.count = before->count + 1;
	describe(page, &r);
	return write_record(path, &r, now, err);
}

int pb_crash_page_take(struct pb_crash_page *page, const char *run_dir, struct pb_err *err)
{
	int rc = 0;

	if (memcmp(page->magic, PB_CRASH_MAGIC, sizeof(page->magic)) == 0 &&
	    page->version == PB_CRASH_VERSION && atomic_load(&page->cause) && page->culprit > 0 &&
	    page->culprit <= PB_CRASH_CULPRITS)
		rc = count_crash(page, run_dir, err);
	memset(page, 0, sizeof(*page));
	memcpy(page->magic, PB_CRASH_MAGIC, sizeof(page->magic));
	page->version = PB_CRASH_VERSION;
	return rc;
}

/* A record is fresh for the one process that follows the crash. */
static void age_record(const char *path, struct pb_crash_record *r, double then)
{
	struct pb_crash_record aged = *r;

	if (!r->fresh)
		return;
	aged.fresh = false;
	write_record(path, &aged, then, NULL);
}

int pb_crash_records_read(const char *run_dir, struct pb_crash_record **ret_records,
			  struct pb_err *err)
{
	PB_FREE char *dir = pb_sprintf("%s/state", run_dir);
	struct dirent *d;
	DIR *handle;

	*ret_records = NULL;
	if (!dir)
		return pb_err_set(err, -ENOMEM, "out of memory");
	handle = opendir(dir);
	if (!handle)
		return errno == ENOENT ? 0
				       : pb_err_set(err, -errno, "%s: %s", dir, strerror(errno));
	while ((d = readdir(handle))) {
		PB_FREE char *path = NULL;
		struct pb_crash_record *r;
		double then = 0;

		if (strncmp(d->d_name, "crash-", 6) != 0)
			continue;
		path = pb_sprintf("%s/%s", dir, d->d_name);
		r = path ? read_record(path, &then) : NULL;
		if (!r)
			continue;
		age_record(path, r, then);
		r->next = *ret_records;
		*ret_records = r;
	}
	closedir(handle);
	return 0;
}

struct pb_crash_record *pb_crash_records_free(struct pb_crash_record *records)
{
	while (records) {
		struct pb_crash_record *next = records->next;

		free(records);
		records = next;
	}
	return NULL;
}

const struct pb_crash_record *pb_crash_find(const struct pb_crash_record *records,
					    const char *plugin, uint64_t hash)
{
	for (; records; records = records->next) {
		if (records->hash == hash && strcmp(records->plugin, plugin) == 0)
			return records;
	}
	return NULL;
}

unsigned pb_crash_count(const struct pb_crash_record *records, const char *plugin, uint64_t hash)
{
	const struct pb_crash_record *r = pb_crash_find(records, plugin, hash);

	return r ? r->count : 0;
}
