/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `patchbay plugin new NAME [DIR]`: a new plugin's sources out of the SDK's template.
 *
 * Owns the template's substitutions. Needs no running agent. Never writes into a directory that
 * exists, and leaves none behind when it fails.
 */
#ifndef PB_CLI_PLUGIN_NEW_H
#define PB_CLI_PLUGIN_NEW_H

#include <base/base.h>

/*
 * argv: the words after `plugin new`. Prints what was made and what to do next; a failure goes
 * to standard error. Returns the tool's exit code: 0, 1 (failed) or 2 (wrong usage). The
 * template is below PB_SDK_DIR, or below $PATCHBAY_SDK_DIR when that is set.
 */
int pb_cli_plugin_new(int argc, char **argv);

/* Lower case letters, digits and inner dashes, a letter first, at most 31 characters. */
bool pb_plugin_name_is_valid(const char *name);
/* -EINVAL: the name; -EEXIST: dir is there. */
int pb_plugin_new(const char *template_dir, const char *name, const char *dir, struct pb_err *err);

#endif
