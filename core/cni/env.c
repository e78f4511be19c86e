/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment of a CNI command. Values are checked before anything is done with them.
 */
#include <cni/cni.h>

static const char bad_env[] = "invalid environment";

static const char *get(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

static int read_command(struct cni_env *env, struct cni_err *err)
{
	static const struct {
		const char *name;
		enum cni_command command;
	} commands[] = {{"ADD", CNI_ADD},
			{"DEL", CNI_DEL},
			{"CHECK", CNI_CHECK},
			{"VERSION", CNI_VERSION}};
	const char *name = get("CNI_COMMAND");

	for (size_t i = 0; i < PB_ARRAY_LEN(commands); i++) {
		if (strcmp(name, commands[i].name) == 0) {
			env->command = commands[i].command;
			return 0;
		}
	}
	return cni_fail(err, CNI_ENVIRONMENT, bad_env,
			"CNI_COMMAND is \"%.32s\"; known are ADD, DEL, CHECK and VERSION. A "
			"container runtime calls this program, not an administrator",
			name);
}

static bool is_id(const char *text)
{
	for (const char *p = text; *p; p++)
		if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') &&
		    !(*p >= '0' && *p <= '9') && (p == text || !strchr("_.-", *p)))
			return false;
	return *text != '\0';
}

static int copy(const char *name, const char *value, size_t len, char *dst, size_t size,
		struct cni_err *err)
{
	if (len >= size)
		return cni_fail(err, CNI_ENVIRONMENT, bad_env, "%s: more than %zu characters", name,
				size - 1);
	memcpy(dst, value, len);
	dst[len] = '\0';
	return 0;
}

/* CNI_ARGS: "KEY=VALUE;KEY=VALUE". */
static int read_arg(const char *args, const char *key, char *dst, size_t size, struct cni_err *err)
{
	size_t len = strlen(key);

	while (*args) {
		size_t part = strcspn(args, ";");

		if (part > len && strncmp(args, key, len) == 0 && args[len] == '=')
			return copy(key, args + len + 1, part - len - 1, dst, size, err);
		args += part;
		args += *args == ';';
	}
	return 0;
}

static int read_args(struct cni_env *env, struct cni_err *err)
{
	const char *args = get("CNI_ARGS");
	int rc = read_arg(args, "K8S_POD_NAMESPACE", env->ns, sizeof(env->ns), err);

	if (rc == 0)
		rc = read_arg(args, "K8S_POD_NAME", env->pod, sizeof(env->pod), err);
	if (rc == 0)
		rc = read_arg(args, "K8S_POD_UID", env->uid, sizeof(env->uid), err);
	if (rc == 0 && env->command != CNI_DEL && (!env->ns[0] || !env->pod[0]))
		return cni_fail(err, CNI_ENVIRONMENT, bad_env,
				"CNI_ARGS: K8S_POD_NAMESPACE and K8S_POD_NAME are missing: the "
				"policy of a container that is no pod isn't known");
	return rc;
}

int cni_env_read(struct cni_env *ret_env, struct cni_err *err)
{
	struct cni_env env = {0};
	const char *container = get("CNI_CONTAINERID"), *ifname = get("CNI_IFNAME");
	int rc = read_command(&env, err);

	if (rc != 0 || env.command == CNI_VERSION) {
		*ret_env = env;
		return rc;
	}
	env.netns = get("CNI_NETNS");
	if (!is_id(container))
		return cni_fail(err, CNI_ENVIRONMENT, bad_env,
				"CNI_CONTAINERID: must be letters, digits and \"_.-\"");
	if (!*ifname)
		return cni_fail(err, CNI_ENVIRONMENT, bad_env, "CNI_IFNAME: missing");
	if (!*env.netns && env.command != CNI_DEL)
		return cni_fail(err, CNI_ENVIRONMENT, bad_env, "CNI_NETNS: missing");
	rc = copy("CNI_CONTAINERID", container, strlen(container), env.container,
		  sizeof(env.container), err);
	if (rc == 0)
		rc = copy("CNI_IFNAME", ifname, strlen(ifname), env.ifname, sizeof(env.ifname),
			  err);
	if (rc == 0)
		rc = read_args(&env, err);
	*ret_env = env;
	return rc;
}
