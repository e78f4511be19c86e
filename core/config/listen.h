/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a server of the agent listens, as the configuration says it.
 *
 * Owns the grammar of such an address. Opens nothing and asks no resolver.
 */
#ifndef PB_LISTEN_H
#define PB_LISTEN_H

#include <sys/socket.h>

#include <base/base.h>

struct pb_listen {
	struct sockaddr_storage addr;
	socklen_t len; /* 0: off */
};

/*
 * "127.0.0.1:9876", "[::1]:9876", "unix:/run/x.sock" or "off". Returns NULL, or what is wrong with
 * the text and how to write it, to go behind the text in a message.
 */
const char *pb_listen_parse(const char *text, struct pb_listen *ret_listen);

#endif
