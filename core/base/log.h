/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's log: one line an event, logfmt or JSON, to standard error.
 *
 * Owns the only process-wide state of the agent besides libraries: format, level and fd. Every
 * value is escaped, so no byte from outside can forge a line or reach a terminal raw. May be
 * called from any thread.
 */
#ifndef PB_LOG_H
#define PB_LOG_H

#include <base/base.h>

enum pb_log_format {
	PB_LOG_LOGFMT = 0,
	PB_LOG_JSON = 1,
};

void pb_log_setup(enum pb_log_format format, uint32_t level, int fd);
bool pb_log_enabled(uint32_t level);

/* component: "core", "kube", "datapath", "plugin:NAME"; level: enum pb_log_level. */
void pb_log(uint32_t level, const char *component, const char *fmt, ...) PB_PRINTF(3, 4);
void pb_logv(uint32_t level, const char *component, const char *fmt, va_list ap);

#define pb_error(component_, ...) pb_log(PB_LOG_ERROR, component_, __VA_ARGS__)
#define pb_warn(component_, ...) pb_log(PB_LOG_WARN, component_, __VA_ARGS__)
#define pb_info(component_, ...) pb_log(PB_LOG_INFO, component_, __VA_ARGS__)
#define pb_debug(component_, ...) pb_log(PB_LOG_DEBUG, component_, __VA_ARGS__)

#endif
