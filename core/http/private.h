/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of core/http only: paths, the server and what it was told to be.
 *
 * A server is one socket with its connections. While http.listen changes there are two, the new one
 * listens before the old one closes.
 */
#ifndef PB_HTTP_PRIVATE_H
#define PB_HTTP_PRIVATE_H

#include <microhttpd.h>
#include <utlist.h>

#include <base/unix.h>
#include <config/listen.h>
#include <http/http.h>

#define HTTP_CONNECTIONS_MAX 32
/* Of them, so that one client leaves room for kubelet. */
#define HTTP_CONNECTIONS_MAX_PER_IP 16
#define HTTP_CONNECTION_MEMORY (16U << 10)
#define HTTP_CONNECTION_TIMEOUT_S 10
#define HTTP_RETRY_MS 10000

struct http_path {
	const char *path;
	pb_httpd_fn fn;
	void *arg;
	struct http_path *next;
};

struct http_server {
	struct pb_httpd *http;
	struct MHD_Daemon *mhd;
	char *text; /* http.listen as it was written */
	struct pb_listen listen;
	struct stat file; /* of a UNIX socket, to remove no other's */
	uv_poll_t poll;	  /* of the library's epoll */
	uv_timer_t timer; /* when the library wants to look again */
	unsigned handles;
};

struct pb_httpd {
	uv_loop_t *loop;
	struct http_path *paths;
	struct http_server *server; /* NULL: off, or it can't listen */
	char *wanted;		    /* http.listen of the configuration in force */
	char *group;		    /* control.group, for UNIX sockets; NULL: none */
	struct pb_err error;	    /* why it doesn't listen where it should */
	uv_timer_t retry;
	unsigned handles; /* open ones of ours and of closing servers */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* socket.c: a listening socket of our own, so that errors can be told exactly. */
int http_socket(const struct pb_httpd *http, const struct pb_listen *where, int *ret_fd,
		struct stat *ret_file, struct pb_err *err);

/* answer.c: the library's request handler; `arg` is the struct pb_httpd. */
enum MHD_Result http_answer(void *arg, struct MHD_Connection *connection, const char *url,
			    const char *method, const char *version, const char *upload_data,
			    size_t *upload_data_size, void **request);

#endif
