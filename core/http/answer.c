/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request: which path, who answers, what is refused. Everything but a GET or HEAD of a known
 * path without a body is refused before more than its headers was read.
 */
#include <http/private.h>

static enum MHD_Result queue(struct MHD_Connection *connection, unsigned status, void *text,
			     size_t len, enum MHD_ResponseMemoryMode mode, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, mode);
	enum MHD_Result result;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	/* What is true now may not be in a second. */
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *text)
{
	return queue(connection, status, (void *)text, strlen(text), MHD_RESPMEM_PERSISTENT,
		     "text/plain; charset=utf-8");
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
	return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static bool has_body(struct MHD_Connection *connection)
{
	const char *len = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING) ||
	       (len && strcmp(len, "0") != 0);
}

static enum MHD_Result run(struct MHD_Connection *connection, const struct http_path *path)
{
	const char *brief = header(connection, "brief");
	const struct pb_httpd_request request = {
		.path = path->path,
		.brief = brief && strcasecmp(brief, "true") == 0,
	};
	struct pb_httpd_answer answer = {.status = MHD_HTTP_OK,
					 .content_type = "text/plain; charset=utf-8"};
	int rc = path->fn(path->arg, &request, &answer);

	if (rc == 0 && !answer.body.data)
		rc = pb_buf_append(&answer.body, "", 0);
	if (rc < 0) {
		pb_buf_free(&answer.body);
		return refuse(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "no answer\n");
	}
	return queue(connection, answer.status, answer.body.data, answer.body.len,
		     MHD_RESPMEM_MUST_FREE, answer.content_type);
}

enum MHD_Result http_answer(void *arg, struct MHD_Connection *connection, const char *url,
			    const char *method, const char *version, const char *upload_data,
			    size_t *upload_data_size, void **request)
{
	const struct pb_httpd *http = arg;
	const struct http_path *path;

	(void)version;
	(void)upload_data;
	(void)upload_data_size;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	LL_FOREACH (http->paths, path) {
		if (strcmp(path->path, url) == 0)
			break;
	}
	if (!path)
		return refuse(connection, MHD_HTTP_NOT_FOUND, "not found\n");
	if (has_body(connection))
		return refuse(connection, MHD_HTTP_BAD_REQUEST, "no request has a body here\n");
	if (*request)
		return run(connection, path);
	/* An answer at the first call, before the library saw the end, would end the connection. */
	*request = (void *)path;
	return MHD_YES;
}
