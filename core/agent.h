/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the agent: start, commands, reload, stop, cleanup.
 *
 * Owns the loop, the order in which the rooms start and end, and the process's signals. Knows no
 * plugin by name. The datapath never depends on the process: a stop leaves it as it is.
 */
#ifndef PB_AGENT_H
#define PB_AGENT_H

#include <base/json.h>
#include <config/config.h>

struct pb_agent_options {
	const char *config_file;
	int log_level; /* enum pb_log_level; -1: as the configuration says */
};

/* Runs until a signal ends it. Takes over `config`. Returns the exit code of the process. */
int pb_agent_run(const struct pb_agent_options *options, struct pb_config *config);
/* Removes what an agent with this configuration made. -EBUSY while one runs. */
int pb_agent_cleanup(const struct pb_config *config, struct pb_err *err);

#endif
