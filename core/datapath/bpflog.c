/* SPDX-License-Identifier: Apache-2.0 */
/* Catches what libbpf prints and finds in it the lines that tell an admin the cause. */
#include <datapath/bpflog.h>

#include <bpf/libbpf.h>

#include <base/log.h>

#define BPFLOG_MAX (256U * 1024) /* bytes kept of one capture */
#define BPFLOG_TAIL (16U * 1024) /* bytes kept of one text */
#define BPFLOG_LINES 4		 /* lines of a cause */

static __thread struct pb_buf *bpflog_capture;

static int bpflog_print(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	PB_FREE char *text = NULL;
	size_t len;

	if (level == LIBBPF_DEBUG || vasprintf(&text, fmt, ap) < 0) {
		text = NULL;
		return 0;
	}
	len = strlen(text);
	/* The verifier's log comes as one text, up to megabytes; the cause is at its end. */
	if (bpflog_capture && level == LIBBPF_WARN && bpflog_capture->len < BPFLOG_MAX)
		pb_buf_append(bpflog_capture, len > BPFLOG_TAIL ? text + len - BPFLOG_TAIL : text,
			      len > BPFLOG_TAIL ? BPFLOG_TAIL : len);
	while (len > 0 && text[len - 1] == '\n')
		text[--len] = '\0';
	pb_debug("datapath", "%s", text);
	return 0;
}

void pb_bpflog_setup(void)
{
	libbpf_set_print(bpflog_print);
}

void pb_bpflog_begin(struct pb_buf *out)
{
	bpflog_capture = out;
}

void pb_bpflog_end(void)
{
	bpflog_capture = NULL;
}

/* Lines that say nothing about the cause. */
static bool is_noise(const char *line, size_t len)
{
	static const char *const noise[] = {"processed ",	    "verification time",
					    "stack depth",	    "-- BEGIN PROG LOAD LOG",
					    "-- END PROG LOAD LOG", "libbpf: failed to load object",
					    "libbpf: map '.rodata'"};

	if (len == 0)
		return true;
	for (size_t i = 0; i < PB_ARRAY_LEN(noise); i++)
		if (strncmp(line, noise[i], strlen(noise[i])) == 0)
			return true;
	return false;
}

static void cause_append(char *buf, size_t size, const char *line, size_t len)
{
	size_t used = strlen(buf);

	if (strncmp(line, "libbpf: ", 8) == 0) {
		line += 8;
		len -= 8;
	}
	snprintf(buf + used, size - used, "%s%.*s", used ? "; " : "", (int)len, line);
}

void pb_bpflog_cause(const char *log, char *buf, size_t size)
{
	static const char begin_mark[] = "-- BEGIN PROG LOAD LOG --";
	const char *lines[BPFLOG_LINES];
	size_t lens[BPFLOG_LINES], n = 0;
	const char *begin = strstr(log, begin_mark);
	const char *end = strstr(log, "-- END PROG LOAD LOG");

	buf[0] = '\0';
	if (begin)
		begin += strlen(begin_mark);
	else
		begin = log;
	if (!end)
		end = begin + strlen(begin);
	while (begin < end) {
		size_t len = strcspn(begin, "\n");

		if (!is_noise(begin, len)) {
			if (n == BPFLOG_LINES) {
				memmove(lines, lines + 1, sizeof(lines) - sizeof(lines[0]));
				memmove(lens, lens + 1, sizeof(lens) - sizeof(lens[0]));
				n--;
			}
			lines[n] = begin;
			lens[n++] = len;
		}
		begin += len + (begin[len] == '\n');
	}
	for (size_t i = 0; i < n; i++)
		cause_append(buf, size, lines[i], lens[i]);
}
