/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent is told and what its answer means to the runtime.
 */
#include <cni/cni.h>

#include <poll.h>

#include <control/ask.h>

/* The agent answers within its own time; this is for one that hangs. */
#define GRACE_MS 5000
/* Between two tries when the agent says that it is busy. */
#define PAUSE_MS 100

static cJSON *argument(const struct cni_env *env, const struct cni_conf *conf,
		       const char *interface, uint64_t left_ms)
{
	cJSON *o = cJSON_CreateObject();
	cJSON *addresses;

	cJSON_AddStringToObject(o, "namespace", env->ns);
	cJSON_AddStringToObject(o, "name", env->pod);
	cJSON_AddStringToObject(o, "container", env->container);
	if (!interface)
		return o;
	if (env->uid[0])
		cJSON_AddStringToObject(o, "uid", env->uid);
	cJSON_AddStringToObject(o, "interface", interface);
	addresses = cJSON_AddArrayToObject(o, "addresses");
	for (uint32_t i = 0; i < conf->n_addresses; i++)
		cJSON_AddItemToArray(addresses, cJSON_CreateString(conf->addresses[i]));
	cJSON_AddNumberToObject(o, "timeout_ms", (double)left_ms);
	return o;
}

/* A line for the control socket; NULL without memory. */
static char *request(const char *command, cJSON *arg)
{
	PB_JSON_FREE cJSON *owned = arg;
	PB_JSON_FREE cJSON *o = cJSON_CreateObject();
	PB_FREE char *inner = cJSON_PrintUnformatted(arg);
	PB_FREE char *outer = NULL;
	cJSON *args;

	cJSON_AddStringToObject(o, "command", command);
	args = cJSON_AddArrayToObject(o, "args");
	cJSON_AddItemToArray(args, cJSON_CreateString(inner ? inner : ""));
	outer = inner ? cJSON_PrintUnformatted(o) : NULL;
	return outer ? pb_sprintf("%s\n", outer) : NULL;
}

/* What will not get better by itself is a wrong configuration. */
static int code_of(int error)
{
	switch (error) {
	case EINVAL:
	case EOPNOTSUPP:
	case EBUSY:
	case ENOSYS:
		return CNI_CONFIG;
	case EACCES:
		return CNI_IO;
	default:
		return CNI_TRY_LATER;
	}
}

static int take_answer(const struct pb_buf *line, bool *ret_busy, struct cni_err *err)
{
	PB_JSON_FREE cJSON *answer = cJSON_ParseWithLength(line->data, line->len);
	int error = (int)pb_json_num(answer, "errno", 0);

	if (pb_json_bool(answer, "ok", false))
		return 0;
	*ret_busy = error == EAGAIN;
	return cni_fail(err, code_of(error), "the Patchbay agent refused", "%s",
			pb_json_str(answer, "error", "what answers on the socket is no agent"));
}

static int ask_once(const struct cni_conf *conf, const char *line, uint64_t deadline_ms,
		    bool *ret_busy, struct cni_err *err)
{
	PB_BUF_FREE struct pb_buf answer = {0};
	struct pb_err why = {0};

	if (!line)
		return cni_fail(err, CNI_TRY_LATER, "out of memory", "%s", conf->socket);
	if (pb_control_ask(conf->socket, line, deadline_ms, &answer, &why) < 0)
		return cni_fail(err, CNI_TRY_LATER, "the Patchbay agent does not answer",
				"%s; is patchbayd running (systemctl status patchbayd)?", why.text);
	return take_answer(&answer, ret_busy, err);
}

int cni_ask(const struct cni_env *env, const struct cni_conf *conf, const char *command,
	    const char *interface, struct cni_err *err)
{
	uint64_t now = pb_now_ns() / 1000000, end = now + conf->timeout_s * 1000ULL;
	bool busy = true;
	int rc = 0;

	/* Many pods at once, or an agent that starts: it says so at once and needs a moment. */
	while (busy) {
		PB_FREE char *line =
			request(command, argument(env, conf, interface, end > now ? end - now : 1));

		busy = false;
		rc = ask_once(conf, line, end + GRACE_MS, &busy, err);
		if (busy)
			poll(NULL, 0, PAUSE_MS);
		now = pb_now_ns() / 1000000;
		busy &= now < end;
	}
	return rc;
}
