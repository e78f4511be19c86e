/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network configuration with the result of the plugins before this one.
 *
 * Owns the rules for it. Strict about what is for us; what other plugins add to their result is
 * theirs and passed on as it is.
 */
#include <cni/cni.h>

#include <arpa/inet.h>

#define SOCKET_DEFAULT "/run/patchbay/patchbay.sock"
#define TIMEOUT_DEFAULT_S 30
#define TIMEOUT_MAX_S 300

static const char bad_conf[] = "invalid network configuration";

/* Nothing unless it is a string that fits, NUL included. */
static bool text_of(struct pb_span value, char *dst, size_t size)
{
	PB_FREE char *text = NULL;
	size_t len;

	if (pb_span_type(value) != '"')
		return false;
	text = malloc(pb_span_room(value));
	if (!text)
		return false;
	len = pb_span_text(value, text);
	if (len == 0 || len >= size || len != strlen(text))
		return false;
	memcpy(dst, text, len + 1);
	return true;
}

/* ---- prevResult ---- */

static int read_interface(struct pb_span value, struct cni_conf *conf, struct cni_err *err)
{
	struct cni_interface *interface = &conf->interfaces[conf->n_interfaces];
	struct pb_span name, sandbox;
	const struct pb_scan_field fields[] = {{"name", &name}, {"sandbox", &sandbox}};

	if (conf->n_interfaces == CNI_INTERFACES_MAX)
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult.interfaces: more than %d entries", CNI_INTERFACES_MAX);
	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	if (!text_of(name, interface->name, sizeof(interface->name)))
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult.interfaces[%u].name: must be a string of 1 to %d "
				"characters",
				conf->n_interfaces, IF_NAMESIZE - 1);
	if (sandbox.p && pb_span_type(sandbox) != '"')
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult.interfaces[%u].sandbox: must be a string",
				conf->n_interfaces);
	interface->sandbox = sandbox.p && !pb_span_is(sandbox, "");
	conf->n_interfaces++;
	return 0;
}

/* True when the entry says that the address is of the host's side. */
static bool is_hosts(const struct cni_conf *conf, int64_t index)
{
	return index >= 0 && index < conf->n_interfaces && !conf->interfaces[index].sandbox;
}

static int read_ip(struct pb_span value, unsigned i, struct cni_conf *conf, struct cni_err *err)
{
	struct pb_span address, interface;
	const struct pb_scan_field fields[] = {{"address", &address}, {"interface", &interface}};
	char text[CNI_ADDRESS_LEN + 4] = "", binary[16];
	char *slash;
	int64_t index = -1;

	pb_scan_fields(value, fields, PB_ARRAY_LEN(fields));
	if (interface.p &&
	    (pb_span_int(interface, &index) < 0 || index < 0 || index >= conf->n_interfaces))
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult.ips[%u].interface: must be an index of "
				"prevResult.interfaces",
				i);
	if (is_hosts(conf, index))
		return 0;
	if (conf->n_addresses == CNI_ADDRESSES_MAX)
		return cni_fail(err, CNI_CONFIG, bad_conf, "prevResult.ips: more than %d addresses",
				CNI_ADDRESSES_MAX);
	slash = text_of(address, text, sizeof(text)) ? strchr(text, '/') : NULL;
	if (slash)
		*slash = '\0';
	if (!slash || strlen(text) >= CNI_ADDRESS_LEN ||
	    inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, binary) != 1)
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult.ips[%u].address: must be an IP address with a prefix "
				"length, such as \"10.1.0.2/24\"",
				i);
	memcpy(conf->addresses[conf->n_addresses++], text, strlen(text) + 1);
	return 0;
}

static int read_prev(struct cni_conf *conf, struct cni_err *err)
{
	struct pb_span interfaces, ips, value;
	const struct pb_scan_field fields[] = {{"interfaces", &interfaces}, {"ips", &ips}};
	struct pb_scan scan;
	unsigned i = 0;
	int rc = 0;

	if (pb_span_type(conf->prev) != '{')
		return cni_fail(err, CNI_CONFIG, bad_conf, "prevResult: must be an object");
	pb_scan_fields(conf->prev, fields, PB_ARRAY_LEN(fields));
	if ((interfaces.p && pb_span_type(interfaces) != '[') ||
	    (ips.p && pb_span_type(ips) != '['))
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"prevResult: interfaces and ips must be lists");
	scan = pb_scan_list(interfaces);
	while (rc == 0 && pb_scan_element(&scan, &value))
		rc = read_interface(value, conf, err);
	scan = pb_scan_list(ips);
	while (rc == 0 && pb_scan_element(&scan, &value))
		rc = read_ip(value, i++, conf, err);
	return rc;
}

/* ---- the rest ---- */

static int read_version(struct pb_span value, struct cni_conf *conf, struct cni_err *err)
{
	static const char *const known[] = {"0.3.1", "0.4.0", "1.0.0"};
	char text[32] = "";

	text_of(value, text, sizeof(text));
	for (size_t i = 0; i < PB_ARRAY_LEN(known); i++) {
		if (strcmp(text, known[i]) == 0) {
			memcpy(conf->version, known[i], strlen(known[i]) + 1);
			return 0;
		}
	}
	return cni_fail(err, CNI_VERSION_UNKNOWN, "incompatible CNI version",
			"cniVersion is \"%s\"; patchbay-cni knows 0.3.1, 0.4.0 and 1.0.0", text);
}

/* Members that the runtime and the specification put there beside our own. */
static bool is_known(const char *key)
{
	static const char *const known[] = {"cniVersion",    "name",	     "type",   "prevResult",
					    "runtimeConfig", "capabilities", "args",   "ipMasq",
					    "dns",	     "socket",	     "timeout"};

	for (size_t i = 0; i < PB_ARRAY_LEN(known); i++)
		if (strcmp(key, known[i]) == 0)
			return true;
	return strncmp(key, "cni.dev/", 8) == 0;
}

static int check_members(struct pb_span root, struct cni_err *err)
{
	struct pb_scan scan = pb_scan_object(root);
	struct pb_span key, value;

	while (pb_scan_member(&scan, &key, &value)) {
		char name[64] = "";

		if (!text_of(key, name, sizeof(name)) || !is_known(name))
			return cni_fail(err, CNI_CONFIG, bad_conf,
					"\"%s\": unknown key; patchbay-cni knows socket and "
					"timeout",
					name);
	}
	return 0;
}

static int read_own(struct pb_span socket, struct pb_span timeout, struct cni_conf *conf,
		    struct cni_err *err)
{
	int64_t seconds = TIMEOUT_DEFAULT_S;

	memcpy(conf->socket, SOCKET_DEFAULT, sizeof(SOCKET_DEFAULT));
	if (socket.p &&
	    (!text_of(socket, conf->socket, sizeof(conf->socket)) || conf->socket[0] != '/'))
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"socket: must be an absolute path of at most %zu characters",
				sizeof(conf->socket) - 1);
	if (timeout.p &&
	    (pb_span_int(timeout, &seconds) < 0 || seconds < 1 || seconds > TIMEOUT_MAX_S))
		return cni_fail(err, CNI_CONFIG, bad_conf,
				"timeout: must be a whole number of seconds from 1 to %d",
				TIMEOUT_MAX_S);
	conf->timeout_s = (uint32_t)seconds;
	return 0;
}

int cni_conf_parse(const char *text, size_t len, struct cni_conf *conf, struct cni_err *err)
{
	struct pb_span root, version, socket, timeout;
	const struct pb_scan_field fields[] = {{"cniVersion", &version},
					       {"prevResult", &conf->prev},
					       {"socket", &socket},
					       {"timeout", &timeout}};
	struct pb_err why = {0};
	int rc;

	*conf = (struct cni_conf){0};
	if (pb_scan_check(text, len, &root, &why) < 0 || pb_span_type(root) != '{')
		return cni_fail(err, CNI_DECODE, "the configuration is no JSON object", "%s",
				why.text);
	pb_scan_fields(root, fields, PB_ARRAY_LEN(fields));
	rc = read_version(version, conf, err);
	if (rc == 0)
		rc = check_members(root, err);
	if (rc == 0)
		rc = read_own(socket, timeout, conf, err);
	return rc == 0 && conf->prev.p ? read_prev(conf, err) : rc;
}

int cni_fail(struct cni_err *err, int code, const char *msg, const char *fmt, ...)
{
	va_list ap;

	err->code = code;
	snprintf(err->msg, sizeof(err->msg), "%s", msg);
	va_start(ap, fmt);
	vsnprintf(err->details, sizeof(err->details), fmt, ap);
	va_end(ap);
	return code;
}
