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
 * JSON's string escapes serve logfmt too. Bytes above 0x7f pass: they are UTF-8 names of the
 * admin's; C1 controls in UTF-8 (C2 80..9F) are the exception, terminals act on them.
 */
static int log_escape(struct pb_buf *out, const char *s)
{
	int rc = 0;

	for (const unsigned char *p = (const unsigned char *)s; *p && rc == 0; p++) {
		if (*p == '"' || *p == '\\')
			rc = pb_buf_printf(out, "\\%c", *p);
		else if (*p == '\n')
			rc = pb_buf_append(out, "\\n", 2);
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
			rc = pb_buf_printf(out, "\\u%04x", *++p);
		else if (*p < 0x20 || *p == 0x7f)
			rc = pb_buf_printf(out, "\\u%04x", *p);
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
