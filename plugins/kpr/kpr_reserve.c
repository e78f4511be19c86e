/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's list is a set of ports: read into a bitmap, the range added, written as ranges.
 * The first write() of an open file replaces the kernel's list, those that follow add to it; the
 * kernel takes a page at a time.
 */
#include "kpr_reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORTS 65536
/* The longest list: every other port, five digits and a comma each. */
#define LIST_MAX (PORTS / 2 * 6 + 2)

struct ports {
	uint64_t bits[PORTS / 64];
};

static bool has(const struct ports *p, uint32_t port)
{
	return p->bits[port / 64] >> (port % 64) & 1;
}

static void add(struct ports *p, uint32_t port)
{
	p->bits[port / 64] |= 1ULL << (port % 64);
}

/* A port at *at, which moves behind it. -1: none. */
static long parse_port(const char **at)
{
	long port = 0;

	if (**at < '0' || **at > '9')
		return -1;
	for (; **at >= '0' && **at <= '9'; (*at)++) {
		port = port * 10 + (**at - '0');
		if (port >= PORTS)
			return -1;
	}
	return port;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n';
}

int kpr_reserve_parse_range(const char *text, struct kpr_port_range *ret_range)
{
	long min, max;

	min = parse_port(&text);
	while (is_blank(*text))
		text++;
	max = parse_port(&text);
	while (is_blank(*text))
		text++;
	if (min < 0 || max < min || *text)
		return -EINVAL;
	*ret_range = (struct kpr_port_range){.min = (uint16_t)min, .max = (uint16_t)max};
	return 0;
}

static int parse_list(const char *text, struct ports *ret_ports)
{
	memset(ret_ports, 0, sizeof(*ret_ports));
	while (*text && !is_blank(*text)) {
		long from = parse_port(&text), to = from;

		if (from >= 0 && *text == '-') {
			text++;
			to = parse_port(&text);
		}
		if (from < 0 || to < from)
			return -EINVAL;
		for (long port = from; port <= to; port++)
			add(ret_ports, (uint32_t)port);
		if (*text == ',')
			text++;
		else if (*text && !is_blank(*text))
			return -EINVAL;
	}
	while (is_blank(*text))
		text++;
	return *text ? -EINVAL : 0;
}

static char *format_list(const struct ports *p)
{
	char *text = malloc(LIST_MAX);
	size_t len = 0;

	if (!text)
		return NULL;
	text[0] = '\0';
	for (uint32_t from = 0; from < PORTS; from++) {
		uint32_t to = from;

		if (!has(p, from))
			continue;
		while (to + 1 < PORTS && has(p, to + 1))
			to++;
		len += (size_t)snprintf(text + len, LIST_MAX - len, "%s%u", len ? "," : "", from);
		if (to > from)
			len += (size_t)snprintf(text + len, LIST_MAX - len, "-%u", to);
		from = to;
	}
	return text;
}

int kpr_reserve_add(const char *list, const struct kpr_port_range *local,
		    const struct kpr_port_range *range, char **ret_text)
{
	struct ports ports;
	bool changed = false;
	int rc = parse_list(list, &ports);

	*ret_text = NULL;
	if (rc < 0 || range->max < local->min || range->min > local->max)
		return rc;
	for (uint32_t port = range->min; port <= range->max; port++) {
		/* All of the range: local ports may be widened afterwards. */
		changed =
			changed || (!has(&ports, port) && port >= local->min && port <= local->max);
		add(&ports, port);
	}
	if (!changed)
		return 0;
	*ret_text = format_list(&ports);
	return *ret_text ? 0 : -ENOMEM;
}

/* ---- the sysctls ---- */

static void say(char *why, size_t why_len, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, why_len, fmt, args);
	va_end(args);
}

static int open_sysctl(const char *dir, const char *name, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return open(path, flags | O_CLOEXEC);
}

/* To be freed. With one read(): the kernel gives a list to the first one only. NULL: see errno. */
static char *read_sysctl(const char *dir, const char *name)
{
	int fd = open_sysctl(dir, name, O_RDONLY);
	char *text = fd >= 0 ? malloc(LIST_MAX) : NULL;
	ssize_t n = text ? read(fd, text, LIST_MAX - 1) : -1;

	if (n < 0) {
		free(text);
		text = NULL;
	} else {
		text[n] = '\0';
	}
	if (fd >= 0)
		close(fd);
	return text;
}

static int write_sysctl(const char *dir, const char *name, const char *text)
{
	int fd = open_sysctl(dir, name, O_WRONLY);
	size_t len = strlen(text), done = 0;
	int rc = 0;

	if (fd < 0)
		return -errno;
	while (rc == 0 && done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n <= 0)
			rc = n < 0 ? -errno : -EIO;
		else
			done += (size_t)n;
	}
	close(fd);
	return rc;
}

static enum kpr_reserve reserve(const char *dir, const char *list,
				const struct kpr_port_range *local,
				const struct kpr_port_range *range, bool wanted, char *why,
				size_t why_len)
{
	char *text = NULL;
	int rc = kpr_reserve_add(list, local, range, &text);
	enum kpr_reserve result = KPR_RESERVE_THERE;

	if (rc < 0) {
		say(why, why_len, "%s/ip_local_reserved_ports can't be understood", dir);
		return KPR_RESERVE_FAILED;
	}
	if (text && !wanted) {
		say(why, why_len, "ports %u-%u are given to outgoing connections",
		    range->min > local->min ? range->min : local->min,
		    range->max < local->max ? range->max : local->max);
		result = KPR_RESERVE_OFF;
	} else if (text) {
		rc = write_sysctl(dir, "ip_local_reserved_ports", text);
		result = rc < 0 ? KPR_RESERVE_FAILED : KPR_RESERVE_DONE;
		if (rc < 0)
			say(why, why_len, "%s/ip_local_reserved_ports can't be written: %s", dir,
			    strerror(-rc));
	}
	free(text);
	return result;
}

enum kpr_reserve kpr_reserve_ports(const char *dir, const struct kpr_port_range *range, bool wanted,
				   char *why, size_t why_len)
{
	char *local_text = read_sysctl(dir, "ip_local_port_range");
	char *list = local_text ? read_sysctl(dir, "ip_local_reserved_ports") : NULL;
	enum kpr_reserve result = KPR_RESERVE_FAILED;
	struct kpr_port_range local;

	if (!list)
		say(why, why_len, "%s/%s can't be read: %s", dir,
		    local_text ? "ip_local_reserved_ports" : "ip_local_port_range",
		    strerror(errno));
	else if (kpr_reserve_parse_range(local_text, &local) < 0)
		say(why, why_len, "%s/ip_local_port_range can't be understood", dir);
	else if (range->max < local.min || range->min > local.max)
		result = KPR_RESERVE_NOT_NEEDED;
	else
		result = reserve(dir, list, &local, range, wanted, why, why_len);
	free(local_text);
	free(list);
	return result;
}
