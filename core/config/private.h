/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: a row of the table of keys, and the reader of values. */
#ifndef PB_CONFIG_PRIVATE_H
#define PB_CONFIG_PRIVATE_H

#include <config/config.h>
#include <config/yaml.h>

/* ---- keys.c ---- */

enum config_key_type {
	KEY_STRING,
	KEY_PATH,
	KEY_UINT,
	KEY_WORD, /* one of `words`, stored as its index */
	KEY_LIST,
};

struct config_key {
	const char *name; /* section.key, or section.part.key */
	enum config_key_type type;
	bool fixed; /* can't be changed while the agent runs */
	size_t offset;
	unsigned min, max, preset; /* KEY_UINT; preset also of KEY_WORD */
	const char *zero;	   /* KEY_UINT: a word that is stored as 0; NULL: none */
	const char *fallback;
	const char *const *words;
	const char *example; /* KEY_LIST: how to write one */
	/* NULL when the string is fine, else what is wrong with it. */
	const char *(*check)(const char *value);
};

#define CONFIG_KEYS 25
extern const struct config_key config_keys[CONFIG_KEYS];

/* A KEY_LIST: its length follows the pointer in the structure. */
struct config_list {
	char **items;
	size_t n;
};

/* Where a configuration has the value of a key. */
void *config_field(const struct pb_config *config, const struct config_key *key);
/* NULL when it may be a socket's address, else what is wrong with it. */
const char *config_check_socket(const char *value);

/* ---- value.c ---- */

struct config_reader {
	struct pb_config *config;
	const char *name;
	char *dir; /* absolute directory of the file */
	struct pb_err *err;
};

int config_no_memory(struct config_reader *r);
/* The error for what isn't one of `known`. */
int config_unknown_key(struct config_reader *r, const struct pb_yaml_item *item, const char *path,
		       const char *const *known);
int config_wrong_type(struct config_reader *r, const struct pb_yaml *node, const char *path,
		      const char *want, const char *remedy);
int config_read_string(struct config_reader *r, const struct config_key *key,
		       const struct pb_yaml *node, const char *path, char **ret_value);
int config_read_word(struct config_reader *r, const char *const *words, const struct pb_yaml *node,
		     const char *path, unsigned *ret_index);
/* The value of a key of the table. */
int config_read_key(struct config_reader *r, const struct config_key *key,
		    const struct pb_yaml *node);

/* ---- plugins.c ---- */

/* The section "plugins". */
int config_read_plugins(struct config_reader *r, const struct pb_yaml *node);

#endif
