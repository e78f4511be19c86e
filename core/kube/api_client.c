/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prepares curl handles from the settings and reads what their end means: a dead server, a
 * token that was replaced, a refusal.
 */
#include <kube/api_client.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <base/json.h>
#include <base/log.h>

#define TOKEN_MAX ((size_t)64 * 1024)
#define LIST_BUFFER (64L * 1024)

const struct pb_api_timing pb_api_timing_default = {
	.heartbeat_ms = 30000,
	.connect_ms = 10000,
	.token_ms = 60000,
	.backoff_ms = 800,
	.backoff_max_ms = 30000,
	.backoff_reset_ms = 120000,
	.short_watch_ms = 1000,
	.watch_min_s = 300,
	.watch_max_s = 600,
	.initial_ms = 10000,
	.version_ms = 600000,
	.absent_ms = 60000,
};

struct api_server {
	char *base; /* what stands before the path */
	char *host; /* header, NULL: the URL's */
	struct curl_slist *connect_to;
};

struct pb_api_client {
	uv_loop_t *loop;
	struct pb_http *http;
	struct pb_api_config *config;
	struct pb_api_timing timing;
	struct api_server *servers;
	size_t server;	/* index of the one in use */
	size_t refused; /* servers that failed in a row, since one answered */
	struct pb_buf token;
	uint64_t token_read; /* uv_now(), 0: never */
	unsigned token_serial;
	bool token_warned;
	void (*closed)(void *arg);
	void *closed_arg;
};

struct pb_api_call {
	struct pb_api_client *client;
	struct pb_http_request *request;
	struct pb_api_calls calls;
	void *arg;
	size_t server;
	unsigned token_serial;
};

/* ---- credentials ---- */

/* Reads the token file again. A file that can't be read leaves the old token in use. */
static void token_read(struct pb_api_client *c)
{
	struct pb_buf text = {0};
	struct pb_err err;
	int rc = pb_file_read(c->config->token_file, TOKEN_MAX, &text, &err);

	c->token_read = uv_now(c->loop) + 1;
	while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
		text.data[--text.len] = '\0';
	if (rc == 0 && (!text.len || strpbrk(text.data, "\r\n")))
		rc = pb_err_set(&err, -EINVAL, "%s: not one line with a token",
				c->config->token_file);
	if (rc < 0) {
		if (!c->token_warned)
			pb_warn("kube", "%s; going on with the token read before", err.text);
		c->token_warned = true;
		pb_buf_free(&text);
		return;
	}
	c->token_warned = false;
	if (c->token.data && strcmp(c->token.data, text.data) == 0) {
		pb_buf_free(&text);
		return;
	}
	pb_buf_free(&c->token);
	c->token = text;
	c->token_serial++;
}

static const char *token_now(struct pb_api_client *c)
{
	if (!c->config->token_file)
		return c->config->token;
	if (!c->token_read || uv_now(c->loop) + 1 - c->token_read >= c->timing.token_ms)
		token_read(c);
	return c->token.data;
}

/* ---- servers ---- */

/*
 * curl verifies the name in the URL. To verify another one (tls-server-name), the URL carries
 * that, and the connection goes to the real host.
 */
static int server_rename(struct api_server *s, const char *url, const char *name)
{
	const char *host = url + strlen("https://");
	size_t len = strcspn(host, "/");
	PB_FREE char *authority = strndup(host, len);
	PB_FREE char *to = NULL;
	const char *colon = authority ? strrchr(authority, ':') : NULL;

	if (!authority)
		return -ENOMEM;
	if (colon && !strchr(colon, ']'))
		to = pb_sprintf("::%s", authority);
	else
		to = pb_sprintf("::%s:443", authority);
	s->connect_to = to ? curl_slist_append(NULL, to) : NULL;
	s->base = pb_sprintf("https://%s%s", name, host + len);
	s->host = pb_sprintf("Host: %s", authority);
	return s->connect_to && s->base && s->host ? 0 : -ENOMEM;
}

static int servers_init(struct pb_api_client *c)
{
	const struct pb_api_config *config = c->config;
	int rc = 0;

	c->servers = calloc(config->n_servers, sizeof(*c->servers));
	if (!c->servers)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_servers && rc == 0; i++) {
		const char *url = config->servers[i];

		if (config->tls_server_name && strncmp(url, "https:", 6) == 0)
			rc = server_rename(&c->servers[i], url, config->tls_server_name);
		else if (!(c->servers[i].base = strdup(url)))
			rc = -ENOMEM;
	}
	return rc;
}

static void servers_free(struct pb_api_client *c)
{
	for (size_t i = 0; c->servers && i < c->config->n_servers; i++) {
		free(c->servers[i].base);
		free(c->servers[i].host);
		curl_slist_free_all(c->servers[i].connect_to);
	}
	free(c->servers);
}

static void server_next(struct pb_api_client *c)
{
	c->server = (c->server + 1) % c->config->n_servers;
	c->refused++;
}

/* ---- a request ---- */

static int add_header(struct curl_slist **list, const char *text)
{
	struct curl_slist *longer = text ? curl_slist_append(*list, text) : NULL;

	if (!longer)
		return -ENOMEM;
	*list = longer;
	return 0;
}

static int make_headers(struct pb_api_client *c, struct curl_slist **ret_headers)
{
	const char *token = token_now(c);
	PB_FREE char *line = token ? pb_sprintf("Authorization: Bearer %s", token) : NULL;
	int rc = add_header(ret_headers, "Accept: application/json");

	if (rc == 0 && token)
		rc = add_header(ret_headers, line);
	if (rc == 0 && c->servers[c->server].host)
		rc = add_header(ret_headers, c->servers[c->server].host);
	if (line)
		explicit_bzero(line, strlen(line));
	return rc;
}

static void set_pem(CURL *easy, const struct pb_api_pem *pem, CURLoption file, CURLoption blob)
{
	if (pem->text.len) {
		struct curl_blob data = {.data = pem->text.data,
					 .len = pem->text.len,
					 .flags = CURL_BLOB_COPY};

		curl_easy_setopt(easy, blob, &data);
	} else if (pem->file) {
		curl_easy_setopt(easy, file, pem->file);
	}
}

static void set_tls(struct pb_api_client *c, CURL *easy)
{
	const struct pb_api_config *config = c->config;

	/* Who names an authority trusts that one, not the system's too. */
	if (config->ca.file || config->ca.text.len) {
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
	}
	set_pem(easy, &config->ca, CURLOPT_CAINFO, CURLOPT_CAINFO_BLOB);
	set_pem(easy, &config->cert, CURLOPT_SSLCERT, CURLOPT_SSLCERT_BLOB);
	set_pem(easy, &config->key, CURLOPT_SSLKEY, CURLOPT_SSLKEY_BLOB);
	if (config->insecure) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
#if LIBCURL_VERSION_NUM >= 0x075700
	/* An authority's file that was replaced must be seen soon; curl's default is a day. */
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 60L);
#endif
}

/* Keep-alives of the kernel notice a dead peer even where HTTP has nothing to ask with. */
static int on_socket_made(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	const struct pb_api_client *c = arg;
	unsigned ms = c->timing.heartbeat_ms;

	if (purpose == CURLSOCKTYPE_IPCXN)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	return CURL_SOCKOPT_OK;
}

static void set_connection(struct pb_api_client *c, CURL *easy, unsigned flags)
{
	long idle = c->timing.heartbeat_ms / 2000 ? (long)c->timing.heartbeat_ms / 2000 : 1;

	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)c->timing.connect_ms);
	if (flags & PB_API_QUICK)
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)c->timing.connect_ms);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, idle);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, idle / 3 ? idle / 3 : 1L);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, on_socket_made);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, c);
	curl_easy_setopt(easy, CURLOPT_CONNECT_TO, c->servers[c->server].connect_to);
	/* "" keeps curl from asking the environment. */
	curl_easy_setopt(easy, CURLOPT_PROXY, c->config->proxy ? c->config->proxy : "");
}

static CURL *make_easy(struct pb_api_client *c, const char *path, unsigned flags)
{
	PB_FREE char *url = pb_sprintf("%s%s", c->servers[c->server].base, path);
	CURL *easy = url ? curl_easy_init() : NULL;

	if (!easy)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "patchbay/" PACKAGE_VERSION);
	if ((flags & PB_API_COMPRESSED) && !c->config->no_compression) {
		curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "gzip");
		curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, LIST_BUFFER);
	}
	if (c->config->username) {
		curl_easy_setopt(easy, CURLOPT_USERNAME, c->config->username);
		curl_easy_setopt(easy, CURLOPT_PASSWORD,
				 c->config->password ? c->config->password : "");
	}
	set_tls(c, easy);
	set_connection(c, easy, flags);
	return easy;
}

/* ---- what an end means ---- */

/* The message of a Status, else the first line of what the server said. */
static void status_text(const struct pb_http_result *http, char *buf, size_t size)
{
	PB_JSON_FREE cJSON *status = cJSON_Parse(http->body);
	const char *message = pb_json_str(status, "message", NULL);
	int first_line = (int)strcspn(http->body, "\r\n");

	if (message)
		snprintf(buf, size, "%ld: %s", http->status, message);
	else if (first_line)
		snprintf(buf, size, "%ld: %.*s", http->status, first_line, http->body);
	else
		snprintf(buf, size, "status %ld", http->status);
}

/* Not one byte of an answer: its server is passed over, once however many calls it failed. */
static bool server_failed(struct pb_api_call *call)
{
	struct pb_api_client *c = call->client;

	if (call->server == c->server)
		server_next(c);
	return c->refused < c->config->n_servers;
}

static bool token_replaced(struct pb_api_call *call)
{
	struct pb_api_client *c = call->client;

	if (!c->config->token_file)
		return false;
	if (call->token_serial == c->token_serial)
		token_read(c);
	return call->token_serial != c->token_serial;
}

static void call_done(void *arg, const struct pb_http_result *http)
{
	PB_FREE struct pb_api_call *call = arg;
	struct pb_api_client *c = call->client;
	struct pb_api_answer answer = {.http = *http};

	if (http->status == 0 && http->rc < 0) {
		snprintf(answer.text, sizeof(answer.text), "%s: %s",
			 c->config->servers[call->server], http->text);
		answer.again = server_failed(call);
	} else if (http->rc < 0) {
		snprintf(answer.text, sizeof(answer.text), "%s", http->text);
	} else if (http->status < 200 || http->status > 299) {
		status_text(http, answer.text, sizeof(answer.text));
	}
	if (http->status)
		c->refused = 0;
	if (http->status == 401)
		answer.again = token_replaced(call);
	call->calls.done(call->arg, &answer);
}

static void call_opened(void *arg)
{
	struct pb_api_call *call = arg;

	if (call->calls.opened)
		call->calls.opened(call->arg);
}

static int call_body(void *arg, const char *data, size_t len)
{
	struct pb_api_call *call = arg;

	return call->calls.body(call->arg, data, len);
}

int pb_api_get(struct pb_api_client *c, const char *path, unsigned flags,
	       const struct pb_api_calls *calls, void *arg, struct pb_api_call **ret_call)
{
	static const struct pb_http_calls http_calls = {call_opened, call_body, call_done};
	PB_FREE struct pb_api_call *call = calloc(1, sizeof(*call));
	struct curl_slist *headers = NULL;
	CURL *easy = NULL;
	int rc = call ? make_headers(c, &headers) : -ENOMEM;

	if (rc == 0 && !(easy = make_easy(c, path, flags)))
		rc = -ENOMEM;
	if (rc < 0) {
		curl_slist_free_all(headers);
		return rc;
	}
	call->client = c;
	call->calls = *calls;
	call->arg = arg;
	call->server = c->server;
	call->token_serial = c->token_serial;
	rc = pb_http_start(c->http, easy, headers, &http_calls, call, &call->request);
	if (rc == 0)
		*ret_call = PB_TAKE_PTR(call);
	return rc;
}

void pb_api_cancel(struct pb_api_call *call)
{
	pb_http_cancel(call->request);
	free(call);
}

void pb_api_give_up(struct pb_api_call *call)
{
	server_failed(call);
	pb_api_cancel(call);
}

unsigned pb_api_http_version(const struct pb_api_call *call)
{
	return pb_http_version(call->request);
}

/* ---- the whole ---- */

void pb_api_client_reset(struct pb_api_client *c, const char *why)
{
	pb_http_reset(c->http, why);
}

const struct pb_api_config *pb_api_client_config(const struct pb_api_client *c)
{
	return c->config;
}

const char *pb_api_client_server(const struct pb_api_client *c)
{
	return c->config->servers[c->server];
}

static void client_free(struct pb_api_client *c)
{
	servers_free(c);
	pb_api_config_free(c->config);
	if (c->token.data)
		explicit_bzero(c->token.data, c->token.cap);
	pb_buf_free(&c->token);
	free(c);
}

int pb_api_client_new(uv_loop_t *loop, struct pb_api_config *config,
		      const struct pb_api_timing *timing, struct pb_api_client **ret_client,
		      struct pb_err *err)
{
	struct pb_api_client *c = calloc(1, sizeof(*c));
	int rc;

	if (!c) {
		pb_api_config_free(config);
		return pb_err_set(err, -ENOMEM, "API client: out of memory");
	}
	c->loop = loop;
	c->config = config;
	c->timing = *timing;
	rc = servers_init(c);
	if (rc < 0)
		pb_err_set(err, rc, "API client: out of memory");
	else
		rc = pb_http_new(loop, &c->http, err);
	if (rc < 0)
		client_free(c);
	else
		*ret_client = c;
	return rc;
}

static void on_http_closed(void *arg)
{
	struct pb_api_client *c = arg;
	void (*closed)(void *arg) = c->closed;
	void *closed_arg = c->closed_arg;

	client_free(c);
	closed(closed_arg);
}

void pb_api_client_close(struct pb_api_client *c, void (*closed)(void *arg), void *arg)
{
	c->closed = closed;
	c->closed_arg = arg;
	pb_http_close(c->http, on_http_closed, c);
}
