/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks single values and knows the settings of a pod (in-cluster). No YAML here.
 */
#include <kube/kubeconfig_values.h>

#include <arpa/inet.h>
#include <curl/curl.h>
#include <sys/stat.h>

#define PEM_MAX ((size_t)1024 * 1024)

static void wipe_string(char *s)
{
	if (s)
		explicit_bzero(s, strlen(s));
	free(s);
}

static void wipe_pem(struct pb_api_pem *pem)
{
	free(pem->file);
	if (pem->text.data)
		explicit_bzero(pem->text.data, pem->text.cap);
	pb_buf_free(&pem->text);
}

struct pb_api_config *pb_api_config_free(struct pb_api_config *config)
{
	if (!config)
		return NULL;
	for (size_t i = 0; i < config->n_servers; i++)
		free(config->servers[i]);
	free(config->servers);
	free(config->origin);
	free(config->tls_server_name);
	wipe_string(config->proxy);
	wipe_string(config->token);
	free(config->token_file);
	free(config->username);
	wipe_string(config->password);
	wipe_pem(&config->ca);
	wipe_pem(&config->cert);
	wipe_pem(&config->key);
	free(config);
	return NULL;
}

static uint64_t digest_text(const char *text, uint64_t seed)
{
	/* The end counts too, and NULL is not "". */
	return text ? pb_hash64(text, strlen(text) + 1, seed) : pb_hash64("\1", 1, seed);
}

static uint64_t digest_pem(const struct pb_api_pem *pem, uint64_t seed)
{
	PB_BUF_FREE struct pb_buf text = {0};
	uint64_t digest = digest_text(pem->file, seed);

	if (pem->file && pb_file_read(pem->file, PEM_MAX, &text, NULL) == 0)
		digest = pb_hash64(text.data, text.len, digest);
	if (text.data)
		explicit_bzero(text.data, text.cap);
	return pb_hash64(pem->text.data, pem->text.len, digest);
}

uint64_t pb_api_config_digest(const struct pb_api_config *c)
{
	const char *const texts[] = {c->origin,	    c->tls_server_name, c->proxy,   c->token,
				     c->token_file, c->username,	c->password};
	const bool flags[] = {c->insecure, c->no_compression};
	uint64_t digest = pb_hash64(flags, sizeof(flags), c->n_servers);

	for (size_t i = 0; i < c->n_servers; i++)
		digest = digest_text(c->servers[i], digest);
	for (size_t i = 0; i < PB_ARRAY_LEN(texts); i++)
		digest = digest_text(texts[i], digest);
	digest = digest_pem(&c->ca, digest);
	digest = digest_pem(&c->cert, digest);
	return digest_pem(&c->key, digest);
}

static bool url_part(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	bool there = curl_url_get(url, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return there;
}

static int url_check(CURLU *url, const char *text, struct pb_err *err)
{
	if (strncmp(text, "https://", 8) != 0 && strncmp(text, "http://", 7) != 0)
		return pb_err_set(err, -EINVAL, "\"%s\" must start with https:// or http://", text);
	if (curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
		return pb_err_set(err, -EINVAL, "\"%s\" is not a URL", text);
	if (url_part(url, CURLUPART_USER) || url_part(url, CURLUPART_PASSWORD))
		return pb_err_set(err, -EINVAL,
				  "a URL with a user in it; use \"username\" and \"password\"");
	if (url_part(url, CURLUPART_QUERY) || url_part(url, CURLUPART_FRAGMENT))
		return pb_err_set(err, -EINVAL, "\"%s\" has something after the path", text);
	return 0;
}

int pb_api_server_url(const char *text, char **ret_url, struct pb_err *err)
{
	CURLU *url = curl_url();
	size_t len = strlen(text);
	int rc = url ? url_check(url, text, err) : pb_err_set(err, -ENOMEM, "out of memory");

	curl_url_cleanup(url);
	if (rc < 0)
		return rc;
	while (len && text[len - 1] == '/')
		len--;
	*ret_url = strndup(text, len);
	return *ret_url ? 0 : pb_err_set(err, -ENOMEM, "out of memory");
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Standard alphabet with padding; blanks anywhere, because YAML folds long lines. */
static int base64_decode(const char *text, struct pb_buf *out)
{
	unsigned bits = 0, have = 0, digits = 0, pads = 0;

	for (; *text; text++) {
		int d = base64_digit(*text);
		unsigned char byte;

		if (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t')
			continue;
		digits++;
		if (*text == '=') {
			pads++;
			continue;
		}
		if (d < 0 || pads)
			return -EINVAL;
		bits = bits << 6 | (unsigned)d;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		byte = (unsigned char)(bits >> have);
		if (pb_buf_append(out, &byte, 1) < 0)
			return -ENOMEM;
	}
	return digits % 4 || pads > 2 ? -EINVAL : 0;
}

int pb_api_pem_inline(const char *base64, struct pb_buf *out, struct pb_err *err)
{
	int rc = base64_decode(base64, out);

	if (rc == -ENOMEM)
		return pb_err_set(err, rc, "out of memory");
	if (rc < 0)
		return pb_err_set(err, rc, "not base64");
	if (!out->len || !strstr(out->data, "-----BEGIN "))
		return pb_err_set(err, -EINVAL, "no PEM block (-----BEGIN ...) in the base64 text");
	return 0;
}

int pb_api_file(const char *base, const char *path, char **ret_path, struct pb_err *err)
{
	const char *slash = path[0] == '/' ? NULL : strrchr(base, '/');
	PB_FREE char *full = NULL;
	struct stat st;

	full = slash ? pb_sprintf("%.*s/%s", (int)(slash - base), base, path) : strdup(path);
	if (!full)
		return pb_err_set(err, -ENOMEM, "out of memory");
	if (stat(full, &st) < 0 || (S_ISREG(st.st_mode) && access(full, R_OK) < 0))
		return pb_err_set(err, -errno, "%s: %s", full, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return pb_err_set(err, -EINVAL, "%s: not a regular file", full);
	*ret_path = PB_TAKE_PTR(full);
	return 0;
}

/* ---- in-cluster ---- */

static int in_cluster_url(struct pb_api_config *config, struct pb_err *err)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");
	const char *port = getenv("KUBERNETES_SERVICE_PORT");
	PB_FREE char *url = NULL;
	struct in6_addr v6;

	if (!host || !*host || !port || !*port)
		return pb_err_set(err, -ENOENT,
				  "in-cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT "
				  "are not set; outside of a pod set kubernetes.kubeconfig");
	if (inet_pton(AF_INET6, host, &v6) == 1)
		url = pb_sprintf("https://[%s]:%s", host, port);
	else
		url = pb_sprintf("https://%s:%s", host, port);
	config->servers = calloc(1, sizeof(*config->servers));
	if (!url || !config->servers)
		return pb_err_set(err, -ENOMEM, "in-cluster: out of memory");
	if (pb_api_server_url(url, &config->servers[0], err) < 0)
		return pb_err_prefix(err, "in-cluster: KUBERNETES_SERVICE_HOST and _PORT");
	config->n_servers = 1;
	return 0;
}

int pb_api_config_in_cluster(const char *directory, struct pb_api_config **ret_config,
			     struct pb_err *err)
{
	struct pb_api_config *config = calloc(1, sizeof(*config));
	PB_FREE char *base = pb_sprintf("%s/", directory);
	int rc;

	if (!config || !base || !(config->origin = strdup("in-cluster")))
		rc = pb_err_set(err, -ENOMEM, "in-cluster: out of memory");
	else
		rc = in_cluster_url(config, err);
	if (rc == 0 && pb_api_file(base, "token", &config->token_file, err) < 0)
		rc = pb_err_prefix(err, "in-cluster: the service account's token");
	if (rc == 0 && pb_api_file(base, "ca.crt", &config->ca.file, err) < 0)
		rc = pb_err_prefix(err, "in-cluster: the cluster's certificate authority");
	if (rc < 0) {
		pb_api_config_free(config);
		return rc;
	}
	*ret_config = config;
	return 0;
}
