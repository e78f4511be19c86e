/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the runtime's call to one JSON object on standard output: the result of the plugins before
 * this one, byte for byte, or an error. Exit code 1 with every error.
 */
#include <cni/cni.h>

#include <signal.h>

static int read_input(struct pb_buf *ret_text, struct cni_err *err)
{
	char chunk[16384];

	for (;;) {
		ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cni_fail(err, CNI_IO, "standard input can't be read", "%s",
					strerror(errno));
		if (n == 0)
			return 0;
		if (ret_text->len + (size_t)n > CNI_CONF_MAX)
			return cni_fail(err, CNI_DECODE, "the configuration is too large",
					"more than %u bytes", CNI_CONF_MAX);
		if (pb_buf_append(ret_text, chunk, (size_t)n) < 0)
			return cni_fail(err, CNI_TRY_LATER, "out of memory", "configuration");
	}
}

static int need_prev(const struct cni_conf *conf, struct cni_err *err)
{
	if (!conf->prev.p)
		return cni_fail(err, CNI_CONFIG, "invalid network configuration",
				"prevResult: missing; patchbay-cni makes no interfaces: put it "
				"behind the plugin that does, in the list \"plugins\"");
	if (conf->n_addresses == 0)
		return cni_fail(err, CNI_CONFIG, "invalid network configuration",
				"prevResult.ips: no address of the pod");
	return 0;
}

static int add(const struct cni_env *env, const struct cni_conf *conf, struct cni_err *err)
{
	struct cni_err ignored;
	char interface[IF_NAMESIZE];
	int rc = need_prev(conf, err);

	if (rc == 0)
		rc = cni_interface_find(env, conf, interface, err);
	if (rc != 0)
		return rc;
	rc = cni_ask(env, conf, "endpoint add", interface, err);
	/* An agent that hung may still do it; what it refused it has taken back by itself. */
	if (rc == CNI_TRY_LATER)
		cni_ask(env, conf, "endpoint delete", NULL, &ignored);
	return rc;
}

static int check(const struct cni_env *env, const struct cni_conf *conf, struct cni_err *err)
{
	char interface[IF_NAMESIZE];
	int rc = need_prev(conf, err);

	if (rc == 0 && strcmp(conf->version, "0.3.1") == 0)
		return cni_fail(err, CNI_VERSION_UNKNOWN, "incompatible CNI version",
				"CHECK came with cniVersion 0.4.0; the configuration says 0.3.1");
	if (rc == 0)
		rc = cni_interface_find(env, conf, interface, err);
	return rc == 0 ? cni_ask(env, conf, "endpoint check", interface, err) : rc;
}

/* Always succeeds: an agent that isn't there finds out by the pod list and the device. */
static void del(const struct cni_env *env, const struct cni_conf *conf)
{
	struct cni_err ignored;

	if (env->ns[0] && env->pod[0])
		cni_ask(env, conf, "endpoint delete", NULL, &ignored);
}

static int run(const struct cni_env *env, struct cni_conf *conf, struct pb_buf *input,
	       struct cni_err *err)
{
	int rc = read_input(input, err);

	if (rc == 0)
		rc = cni_conf_parse(input->data ? input->data : "", input->len, conf, err);
	if (rc != 0)
		return rc;
	switch (env->command) {
	case CNI_ADD:
		rc = add(env, conf, err);
		break;
	case CNI_CHECK:
		rc = check(env, conf, err);
		break;
	default:
		del(env, conf);
	}
	if (rc == 0 && env->command == CNI_ADD)
		fwrite(conf->prev.p, 1, (size_t)(conf->prev.end - conf->prev.p), stdout);
	return rc;
}

static void print_error(const struct cni_conf *conf, const struct cni_err *err)
{
	PB_JSON_FREE cJSON *o = cJSON_CreateObject();
	PB_FREE char *text = NULL;

	cJSON_AddStringToObject(o, "cniVersion", conf->version[0] ? conf->version : "1.0.0");
	cJSON_AddNumberToObject(o, "code", err->code);
	cJSON_AddStringToObject(o, "msg", err->msg);
	cJSON_AddStringToObject(o, "details", err->details);
	text = cJSON_PrintUnformatted(o);
	puts(text ? text : "{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"out of memory\"}");
}

int main(void)
{
	PB_BUF_FREE struct pb_buf input = {0};
	struct cni_conf conf = {0};
	struct cni_err err = {0};
	struct cni_env env;
	int rc;

	signal(SIGPIPE, SIG_IGN);
	rc = cni_env_read(&env, &err);
	if (rc == 0 && env.command == CNI_VERSION) {
		puts("{\"cniVersion\":\"1.0.0\","
		     "\"supportedVersions\":[\"0.3.1\",\"0.4.0\",\"1.0.0\"]}");
		return 0;
	}
	if (rc == 0)
		rc = run(&env, &conf, &input, &err);
	if (rc != 0)
		print_error(&conf, &err);
	return rc != 0;
}
