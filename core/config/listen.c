/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses to listen on: IPv4, IPv6 in brackets, UNIX sockets, off. */
#include <config/listen.h>

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <sys/un.h>

static const char form[] = "is no address; write 127.0.0.1:PORT, [::1]:PORT, unix:/PATH or off, "
			   "names are not resolved";

static const char *parse_port(const char *text, in_port_t *ret_port)
{
	unsigned port = 0;

	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9' || p - text >= 5)
			return "has no port behind its last ':'; give a number from 1 to 65535";
		port = port * 10 + (unsigned)(*p - '0');
	}
	if (port == 0 || port > 65535)
		return "has no port behind its last ':'; give a number from 1 to 65535";
	*ret_port = htons((uint16_t)port);
	return NULL;
}

static const char *parse_unix(const char *path, struct pb_listen *listen)
{
	struct sockaddr_un *addr = (struct sockaddr_un *)&listen->addr;

	if (*path != '/')
		return "needs an absolute path behind \"unix:\"";
	if (strlen(path) >= sizeof(addr->sun_path))
		return "is too long for a socket's address; at most 107 bytes behind \"unix:\"";
	addr->sun_family = AF_UNIX;
	memcpy(addr->sun_path, path, strlen(path) + 1);
	listen->len = sizeof(*addr);
	return NULL;
}

/* `text` up to `len` is the host. */
static const char *parse_host(const char *text, size_t len, struct pb_listen *listen)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&listen->addr;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&listen->addr;
	bool brackets = len > 2 && text[0] == '[' && text[len - 1] == ']';
	char host[INET6_ADDRSTRLEN];

	if (brackets) {
		text++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(host))
		return form;
	memcpy(host, text, len);
	host[len] = '\0';
	if (brackets && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		listen->len = sizeof(*v6);
	} else if (!brackets && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		listen->len = sizeof(*v4);
	} else {
		return form;
	}
	return NULL;
}

const char *pb_listen_parse(const char *text, struct pb_listen *ret_listen)
{
	const char *colon = strrchr(text, ':'), *wrong;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ret_listen->addr;
	in_port_t port;

	memset(ret_listen, 0, sizeof(*ret_listen));
	if (strcmp(text, "off") == 0)
		return NULL;
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret_listen);
	if (!colon)
		return form;
	wrong = parse_port(colon + 1, &port);
	if (!wrong)
		wrong = parse_host(text, (size_t)(colon - text), ret_listen);
	if (wrong)
		return wrong;
	/* Same place in both families. */
	static_assert(offsetof(struct sockaddr_in, sin_port) ==
			      offsetof(struct sockaddr_in6, sin6_port),
		      "the port follows the family");
	v4->sin_port = port;
	return NULL;
}
