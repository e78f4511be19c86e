/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats log lines and writes each with one write(2), so lines of threads never mix.
 */
#include <base/log.h>

#include <stdatomic.h>
#include <time.h>

static atomic_uint log_level = PB_LOG_INFO;
static atomic_uint log_format = PB_LOG_LOGFMT;
static atomic_int log_fd = 2;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void pb_log_setup(enum pb_log_format format, uint32_t level, int fd)
{
	atomic_store(&log_format, format);
	atomic_store(&log_level, level);
	atomic_store(&log_fd, fd);
}

bool pb_log_enabled(uint32_t level)
{
	return level <= atomic_load(&log_level);
}

/*
 * The character at `s` that a terminal acts on, or that reorders or breaks a line, also where it is
 * UTF-8; 0 when it is none. *ret_len: how many bytes to go on by.
 */
static unsigned unsafe_at(const unsigned char *s, size_t *ret_len)
{
	unsigned c = 0;

	*ret_len = 1;
	if (*s < 0x20 || *s == 0x7f)
		return *s;
	if (*s == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f) {
		*ret_len = 2;
		return s[1];
	}
	if (*s == 0xe2 && (s[1] == 0x80 || s[1] == 0x81) && (s[2] & 0xc0) == 0x80)
		c = 0x2000U | (s[1] & 0x3fU) << 6 | (s[2] & 0x3fU);
	if ((c < 0x200e || c > 0x200f) && (c < 0x2028 || c > 0x202e) && (c < 0x2066 || c > 0x2069))
		return 0;
	*ret_len = 3;
	return c;
}

/* JSON's string escapes serve logfmt too. Other characters above 0x7f pass: they are names. */
static int log_escape(struct pb_buf *out, const char *s)
{
	size_t len;
	unsigned c;
	int rc = 0;

	for (const unsigned char *p = (const unsigned char *)s; *p && rc == 0; p += len) {
		c = unsafe_at(p, &len);
		if (*p == '"' || *p == '\\')
			rc = pb_buf_printf(out, "\\%c", *p);
		else if (*p == '\n')
			rc = pb_buf_append(out, "\\n", 2);
		else if (c)
			rc = pb_buf_printf(out, "\\u%04x", c);
		else
			rc = pb_buf_append(out, p, 1);
	}
	return rc;
}

static int log_line(struct pb_buf *line, uint32_t level, const char *component, const char *msg)
{
	bool json = atomic_load(&log_format) == PB_LOG_JSON;
	char date[32];
	struct timespec ts;
	struct tm tm;
	int rc;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	rc = pb_buf_printf(line,
			   json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"component\":\"%s\","
				  "\"msg\":\""
				: "time=%s.%03ldZ level=%s component=%s msg=\"",
			   date, ts.tv_nsec / 1000000, level_names[level], component);
	if (rc == 0)
		rc = log_escape(line, msg);
	return rc < 0 ? rc : pb_buf_append(line, json ? "\"}\n" : "\"\n", json ? 3 : 2);
}

void pb_logv(uint32_t level, const char *component, const char *fmt, va_list ap)
{
	PB_BUF_FREE struct pb_buf line = {0};
	PB_FREE char *msg = NULL;

	if (level > PB_LOG_DEBUG)
		level = PB_LOG_DEBUG;
	if (!pb_log_enabled(level) || vasprintf(&msg, fmt, ap) < 0)
		return;
	if (log_line(&line, level, component, msg) < 0)
		return;
	/* Nobody could be told that the log itself failed. */
	if (write(atomic_load(&log_fd), line.data, line.len) < 0)
		return;
}

void pb_log(uint32_t level, const char *component, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pb_logv(level, component, fmt, ap);
	va_end(ap);
}
