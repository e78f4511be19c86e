/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short names for what the agent does with cJSON all the time.
 *
 * Owns nothing: every function works on the caller's tree.
 */
#ifndef PB_JSON_H
#define PB_JSON_H

#include <cjson/cJSON.h>

#include <base/base.h>

void pb_cleanup_json(cJSON **json);
#define PB_JSON_FREE __attribute__((cleanup(pb_cleanup_json), unused))

/* The string member `key`, or `fallback` when it is missing or not a string. */
const char *pb_json_str(const cJSON *obj, const char *key, const char *fallback);
double pb_json_num(const cJSON *obj, const char *key, double fallback);
bool pb_json_bool(const cJSON *obj, const char *key, bool fallback);
/* Walks "a.b.c"; NULL when a step is missing. */
const cJSON *pb_json_path(const cJSON *obj, const char *path);

/* A table in the shape of pb_command_fn: columns from {title, field} pairs ended by NULL. */
struct pb_json_column {
	const char *title;
	const char *field;
};
/* Returns the object; *ret_items is its (empty) item array. NULL without memory. */
cJSON *pb_json_table(const struct pb_json_column *columns, cJSON **ret_items);

#endif
