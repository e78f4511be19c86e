/* SPDX-License-Identifier: Apache-2.0 */
/* One check for each room; a line names the room, the thing in it and what it says itself. */
#include <agent_health.h>

struct health {
	struct pb_buf *lines;
	enum pb_health worst;
};

/* Whoever reads this goes by lines, so what a plugin or a server said may not make any. */
static void __attribute__((format(printf, 3, 4)))
note(struct health *h, enum pb_health how, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	pb_buf_printf(h->lines, "%s\n", text);
	if (how > h->worst)
		h->worst = how;
}

static void check_plugins(struct health *h, const cJSON *table)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, cJSON_GetObjectItem(table, "items")) {
		const char *state = pb_json_str(item, "state", "");

		if (strcmp(state, "failed") == 0 || strcmp(state, "left out") == 0)
			note(h, PB_HEALTH_FAILED, "plugins: %s: %s: %s",
			     pb_json_str(item, "name", ""), state, pb_json_str(item, "error", ""));
	}
}

static void check_kubernetes(struct health *h, const cJSON *status)
{
	const char *error = pb_json_str(status, "source_error", "");
	const cJSON *kind;

	if (*error)
		note(h, PB_HEALTH_FAILING, "kubernetes: %s", error);
	cJSON_ArrayForEach (kind, cJSON_GetObjectItem(status, "kinds")) {
		if (!pb_json_bool(kind, "healthy", true))
			note(h, PB_HEALTH_FAILING, "kubernetes: %s: %s",
			     pb_json_str(kind, "kind", ""), pb_json_str(kind, "source", ""));
	}
}

static void check_datapath(struct health *h, const cJSON *links)
{
	const cJSON *link;

	cJSON_ArrayForEach (link, links) {
		const char *state = pb_json_str(link, "state", "");

		if (strcmp(state, "failed") == 0 || strcmp(state, "replaced") == 0)
			note(h, PB_HEALTH_FAILING, "datapath: %s on %s: %s",
			     pb_json_str(link, "hook", ""), pb_json_str(link, "device", ""), state);
	}
}

enum pb_health pb_agent_health(const struct pb_health_in *in, struct pb_buf *lines)
{
	struct health h = {.lines = lines};

	if (strcmp(in->state, "stopping") == 0)
		note(&h, PB_HEALTH_FAILING, "agent: stopping");
	check_plugins(&h, in->plugins);
	check_kubernetes(&h, in->kubernetes);
	check_datapath(&h, in->links);
	if (h.worst == PB_HEALTH_OK)
		pb_buf_printf(lines, "ok\n");
	return h.worst;
}

bool pb_agent_ready(const struct pb_health_in *in, struct pb_buf *lines)
{
	struct health h = {.lines = lines};
	const cJSON *kind;

	if (strcmp(in->state, "ready") != 0 && strcmp(in->state, "reloading") != 0)
		note(&h, PB_HEALTH_FAILING, "agent: %s", in->state);
	check_plugins(&h, in->plugins);
	check_datapath(&h, in->links);
	cJSON_ArrayForEach (kind, cJSON_GetObjectItem(in->kubernetes, "kinds")) {
		const char *state = pb_json_str(kind, "state", "");

		if (strcmp(state, "waiting for the first list") == 0)
			note(&h, PB_HEALTH_FAILING, "kubernetes: %s: %s: %s",
			     pb_json_str(kind, "kind", ""), state, pb_json_str(kind, "source", ""));
	}
	if (h.worst == PB_HEALTH_OK)
		pb_buf_printf(lines, "ok\n");
	return h.worst == PB_HEALTH_OK;
}
