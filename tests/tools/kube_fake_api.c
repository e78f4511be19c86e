/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Kubernetes side of the fake API server. State at any version is the replay of the history,
 * which is how a page of an older snapshot can be served exactly.
 */
#include "kube_fake_objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAULTS 8
#define ASKED_MAX 4096
#define WATCHES_MAX 32

struct watch {
	struct fake_conn *conn;
	char collection[256];
};

struct fault {
	char match[128];
	int times;
	int status;
	char headers[256];
	char *body;
};

struct fake_api {
	struct fake_http *http;
	struct fake_change *changes;
	size_t n_changes;
	unsigned long rv, compacted;
	struct watch watches[WATCHES_MAX];
	unsigned n_watches;
	struct fault faults[FAULTS];
	char *asked[ASKED_MAX];
	unsigned n_asked;
	void (*on_page)(void *arg, unsigned page);
	void *on_page_arg;
	unsigned page_max, cut_lists;
	bool gone_as_status, compress;
	char authorization[512], host[256];
	char served[2][256]; /* v1, v1beta1 */
	char minor[16], git_version[64];
	enum fake_watch_list watch_list;
};

/* ---- objects ---- */

static void tell_watches(struct fake_api *api, const struct fake_change *c)
{
	struct fake_text t;

	fake_text_open(&t);
	fake_print_event(t.file, c);
	fake_text_close(&t);
	for (unsigned i = 0; i < api->n_watches; i++) {
		if (strcmp(api->watches[i].collection, c->collection) == 0)
			fake_send(api->watches[i].conn, t.data, t.len);
	}
	free(t.data);
}

static unsigned long add_change(struct fake_api *api, const char *collection, const char *ns,
				const char *name, const char *body, bool deleted)
{
	struct fake_change *c;

	api->changes = realloc(api->changes, (api->n_changes + 1) * sizeof(*c));
	c = &api->changes[api->n_changes++];
	*c = (struct fake_change){.rv = ++api->rv,
				  .collection = strdup(collection),
				  .ns = strdup(ns),
				  .name = strdup(name),
				  .body = strdup(body),
				  .deleted = deleted,
				  .first = true};
	for (size_t i = 0; i + 1 < api->n_changes; i++) {
		if (fake_same_object(&api->changes[i], c))
			c->first = api->changes[i].deleted;
	}
	tell_watches(api, c);
	return c->rv;
}

unsigned long fake_api_put(struct fake_api *api, const char *collection, const char *ns,
			   const char *name, const char *more)
{
	return add_change(api, collection, ns, name, more, false);
}

unsigned long fake_api_delete(struct fake_api *api, const char *collection, const char *ns,
			      const char *name)
{
	return add_change(api, collection, ns, name, "", true);
}

void fake_api_tick(struct fake_api *api)
{
	api->rv++;
}

void fake_api_compact(struct fake_api *api)
{
	api->compacted = api->rv;
}

unsigned long fake_api_version(const struct fake_api *api)
{
	return api->rv;
}

/* ---- answers ---- */

static void reply_status(struct fake_conn *conn, int code, const char *reason, const char *message)
{
	char body[1024];
	int n = snprintf(body, sizeof(body),
			 "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":"
			 "\"Failure\",\"message\":\"%s\",\"reason\":\"%s\",\"code\":%d}",
			 message, reason, code);

	fake_reply(conn, code, "", body, (size_t)n);
}

static void query(const char *path, const char *key, char *buf, size_t size)
{
	const char *at = strchr(path, '?');
	size_t len = strlen(key);

	buf[0] = '\0';
	while (at) {
		at++;
		if (strncmp(at, key, len) == 0 && at[len] == '=') {
			at += len + 1;
			snprintf(buf, size, "%.*s", (int)strcspn(at, "&"), at);
			return;
		}
		at = strchr(at, '&');
	}
}

static void send_list(struct fake_api *api, struct fake_conn *conn, const struct fake_text *t,
		      bool gz)
{
	struct fake_text packed = {0};

	if (api->cut_lists) {
		const char *end = strrchr(t->data, '{');

		api->cut_lists--;
		fake_begin(conn, "");
		fake_send(conn, t->data, (size_t)(end - t->data) + 4);
		fake_drop(conn);
		return;
	}
	if (gz)
		fake_gzip(&packed, t->data, t->len);
	fake_begin(conn, gz ? "Content-Encoding: gzip\r\n" : "");
	fake_send(conn, gz ? packed.data : t->data, gz ? packed.len : t->len);
	fake_end(conn);
	free(packed.data);
}

static void on_list(struct fake_api *api, struct fake_conn *conn, const struct fake_request *r,
		    const char *collection)
{
	unsigned long rv = api->rv;
	char limit[32], token[64];
	struct fake_change **items;
	size_t all, from = 0, to;
	struct fake_text t;

	query(r->path, "limit", limit, sizeof(limit));
	query(r->path, "continue", token, sizeof(token));
	if (api->on_page)
		api->on_page(api->on_page_arg, token[0] ? 2 : 1);
	rv = api->rv;
	if (token[0] && sscanf(token, "%lu%%3A%zu%%3D", &rv, &from) != 2)
		return reply_status(conn, 400, "BadRequest", "continue key is not valid");
	if (token[0] && rv < api->compacted)
		return reply_status(conn, 410, "Expired",
				    "The provided continue parameter is too old");
	items = calloc(api->n_changes + 1, sizeof(struct fake_change *));
	all = fake_snapshot(api->changes, api->n_changes, collection, rv, items);
	to = all;
	if (limit[0] && api->page_max && from + api->page_max < all)
		to = from + api->page_max;
	fake_text_open(&t);
	fake_print_list(t.file, collection, items, from, to, all, rv);
	fake_text_close(&t);
	send_list(api, conn, &t, api->compress && r->gzip);
	free(t.data);
	free(items);
}

static void send_gone(struct fake_api *api, struct fake_conn *conn)
{
	static const char event[] =
		"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\","
		"\"metadata\":{},\"status\":\"Failure\",\"message\":\"too old resource version\","
		"\"reason\":\"Expired\",\"code\":410}}\n";

	if (api->gone_as_status)
		return reply_status(conn, 410, "Expired", "too old resource version");
	fake_begin(conn, "");
	fake_send(conn, event, strlen(event));
	fake_end(conn);
}

/* ADDED for every object that there is, and the mark. */
static void print_initial(struct fake_api *api, FILE *f, const char *collection)
{
	struct fake_change **items = calloc(api->n_changes + 1, sizeof(struct fake_change *));
	size_t n = fake_snapshot(api->changes, api->n_changes, collection, api->rv, items);

	for (size_t i = 0; i < n; i++) {
		fprintf(f, "{\"type\":\"ADDED\",\"object\":");
		fake_print_object(f, items[i], items[i]->rv, true);
		fprintf(f, "}\n");
	}
	if (api->watch_list == FAKE_WATCH_LIST_SERVED)
		fake_print_bookmark(f, collection, api->rv, true);
	free(items);
}

static void on_watch(struct fake_api *api, struct fake_conn *conn, const struct fake_request *r,
		     const char *collection)
{
	char rv[64], initial[8];
	unsigned long since;
	struct fake_text t;

	query(r->path, "resourceVersion", rv, sizeof(rv));
	query(r->path, "sendInitialEvents", initial, sizeof(initial));
	since = initial[0] ? api->rv : strtoul(rv, NULL, 10);
	if (initial[0] && api->watch_list == FAKE_WATCH_LIST_MUTE)
		return;
	if (initial[0] && api->watch_list == FAKE_WATCH_LIST_INVALID)
		return reply_status(conn, 422, "Invalid",
				    "resourceVersionMatch: Forbidden: resourceVersionMatch is "
				    "forbidden for watch");
	if (since < api->compacted)
		return send_gone(api, conn);
	if (api->n_watches == WATCHES_MAX)
		abort();
	fake_begin(conn, "");
	fake_text_open(&t);
	if (initial[0])
		print_initial(api, t.file, collection);
	for (size_t i = 0; i < api->n_changes; i++) {
		const struct fake_change *c = &api->changes[i];

		if (c->rv > since && strcmp(c->collection, collection) == 0)
			fake_print_event(t.file, c);
	}
	fake_text_close(&t);
	fake_send(conn, t.data, t.len);
	free(t.data);
	api->watches[api->n_watches].conn = conn;
	snprintf(api->watches[api->n_watches++].collection, sizeof(api->watches[0].collection),
		 "%s", collection);
}

static void on_discovery(struct fake_api *api, struct fake_conn *conn, const char *path)
{
	const char *served = api->served[strstr(path, "v1beta1") != NULL];
	char names[256], *name, *save;
	struct fake_text t;

	if (!served[0])
		return fake_reply(conn, 404, "", "404 page not found\n", 19);
	fake_text_open(&t);
	fprintf(t.file, "{\"kind\":\"APIResourceList\",\"groupVersion\":\"%s\",\"resources\":[",
		path + 6);
	snprintf(names, sizeof(names), "%s", served);
	for (name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save))
		fprintf(t.file, "%s{\"name\":\"%s\",\"namespaced\":true}", name == names ? "" : ",",
			name);
	fprintf(t.file, "]}");
	fake_text_close(&t);
	fake_reply(conn, 200, "", t.data, t.len);
	free(t.data);
}

static bool on_fault(struct fake_api *api, struct fake_conn *conn, const char *path)
{
	for (unsigned i = 0; i < FAULTS; i++) {
		struct fault *f = &api->faults[i];

		if (!f->times || !strstr(path, f->match))
			continue;
		f->times--;
		fake_reply(conn, f->status, f->headers, f->body, strlen(f->body));
		return true;
	}
	return false;
}

static void on_request(void *arg, struct fake_conn *conn, const struct fake_request *r)
{
	struct fake_api *api = arg;
	char collection[256], watch[8], version[256];

	if (api->n_asked < ASKED_MAX)
		api->asked[api->n_asked++] = strdup(r->path);
	snprintf(api->host, sizeof(api->host), "%s", r->host);
	snprintf(collection, sizeof(collection), "%.*s", (int)strcspn(r->path, "?"), r->path);
	query(r->path, "watch", watch, sizeof(watch));
	if (api->authorization[0] && strcmp(api->authorization, r->authorization) != 0)
		return reply_status(conn, 401, "Unauthorized", "Unauthorized");
	if (on_fault(api, conn, r->path))
		return;
	snprintf(version, sizeof(version),
		 "{\"major\":\"1\",\"minor\":\"%s\",\"gitVersion\":\"%s\"}", api->minor,
		 api->git_version);
	if (strcmp(r->path, "/version") == 0)
		fake_reply(conn, 200, "", version, strlen(version));
	else if (strcmp(collection, "/apis/discovery.k8s.io/v1") == 0 ||
		 strcmp(collection, "/apis/discovery.k8s.io/v1beta1") == 0)
		on_discovery(api, conn, collection);
	else if (watch[0])
		on_watch(api, conn, r, collection);
	else
		on_list(api, conn, r, collection);
}

static void on_gone(void *arg, struct fake_conn *conn)
{
	struct fake_api *api = arg;

	for (unsigned i = 0; i < api->n_watches; i++) {
		if (api->watches[i].conn == conn)
			api->watches[i--] = api->watches[--api->n_watches];
	}
}

/* ---- what a test does to it ---- */

void fake_api_raw(struct fake_api *api, const char *text)
{
	for (unsigned i = 0; i < api->n_watches; i++)
		fake_send(api->watches[i].conn, text, strlen(text));
}

static void bookmark(struct fake_api *api, bool mark)
{
	for (unsigned i = 0; i < api->n_watches; i++) {
		struct fake_text t;

		fake_text_open(&t);
		fake_print_bookmark(t.file, api->watches[i].collection, api->rv, mark);
		fake_text_close(&t);
		fake_send(api->watches[i].conn, t.data, t.len);
		free(t.data);
	}
}

void fake_api_bookmark(struct fake_api *api)
{
	bookmark(api, false);
}

void fake_api_mark(struct fake_api *api)
{
	bookmark(api, true);
}

void fake_api_is(struct fake_api *api, const char *minor, const char *git_version)
{
	snprintf(api->minor, sizeof(api->minor), "%s", minor);
	snprintf(api->git_version, sizeof(api->git_version), "%s", git_version);
}

void fake_api_watch_list(struct fake_api *api, enum fake_watch_list how)
{
	api->watch_list = how;
}

void fake_api_end_watches(struct fake_api *api, bool clean)
{
	while (api->n_watches) {
		struct fake_conn *conn = api->watches[api->n_watches - 1].conn;

		if (!clean) {
			fake_drop(conn);
			continue;
		}
		fake_end(conn);
		api->n_watches--;
	}
}

unsigned fake_api_watches(const struct fake_api *api)
{
	return api->n_watches;
}

void fake_api_fail(struct fake_api *api, const char *match, int times, int status,
		   const char *headers, const char *body)
{
	for (unsigned i = 0; i < FAULTS; i++) {
		struct fault *f = &api->faults[i];

		if (f->times)
			continue;
		free(f->body);
		f->body = strdup(body);
		f->times = times;
		f->status = status;
		snprintf(f->match, sizeof(f->match), "%s", match);
		snprintf(f->headers, sizeof(f->headers), "%s", headers);
		return;
	}
	abort();
}

void fake_api_on_page(struct fake_api *api, void (*fn)(void *arg, unsigned page), void *arg)
{
	api->on_page = fn;
	api->on_page_arg = arg;
}

void fake_api_cut_lists(struct fake_api *api, unsigned n)
{
	api->cut_lists = n;
}

void fake_api_page_max(struct fake_api *api, unsigned items)
{
	api->page_max = items;
}

void fake_api_gone_as_status(struct fake_api *api, bool on)
{
	api->gone_as_status = on;
}

void fake_api_compress(struct fake_api *api, bool on)
{
	api->compress = on;
}

void fake_api_require(struct fake_api *api, const char *authorization)
{
	snprintf(api->authorization, sizeof(api->authorization), "%s",
		 authorization ? authorization : "");
}

void fake_api_serve(struct fake_api *api, const char *version, const char *plurals)
{
	snprintf(api->served[strcmp(version, "v1beta1") == 0], sizeof(api->served[0]), "%s",
		 plurals ? plurals : "");
}

unsigned fake_api_asked(const struct fake_api *api, const char *a, const char *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < api->n_asked; i++)
		n += strstr(api->asked[i], a) && (!b || strstr(api->asked[i], b));
	return n;
}

const char *fake_api_last(const struct fake_api *api, const char *match)
{
	for (unsigned i = api->n_asked; i > 0; i--) {
		if (strstr(api->asked[i - 1], match))
			return api->asked[i - 1];
	}
	return "";
}

const char *fake_api_host(const struct fake_api *api)
{
	return api->host;
}

struct fake_http *fake_api_http(struct fake_api *api)
{
	return api->http;
}

struct fake_api *fake_api_new(uv_loop_t *loop, const char *cert, const char *key)
{
	struct fake_api *api = calloc(1, sizeof(*api));

	api->rv = 100;
	fake_api_serve(api, "v1", "endpointslices");
	fake_api_is(api, "26", "v1.26.0");
	api->http = fake_http_new(loop, cert, key, on_request, on_gone, api);
	return api;
}

void fake_api_close(struct fake_api *api)
{
	fake_http_close(api->http);
	for (size_t i = 0; i < api->n_changes; i++) {
		free(api->changes[i].collection);
		free(api->changes[i].ns);
		free(api->changes[i].name);
		free(api->changes[i].body);
	}
	free(api->changes);
	for (unsigned i = 0; i < FAULTS; i++)
		free(api->faults[i].body);
	for (unsigned i = 0; i < api->n_asked; i++)
		free(api->asked[i]);
	free(api);
}
