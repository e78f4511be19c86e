/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manager's commands on the control socket: plugin list, load, unload, reload.
 *
 * Owns the wording for the admin; changes nothing itself.
 */
#ifndef PB_REPORT_H
#define PB_REPORT_H

#include <plugin/private.h>

void pb_report_commands_add(struct pb_manager *m);
void pb_report_commands_remove(struct pb_manager *m);

#endif
