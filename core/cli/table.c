/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of the tool and of the agent's core. Help, completion and dispatch follow this
 * table; what plugins add is known to the agent only and merged in when it runs.
 */
#include <cli/cli.h>

const struct cli_command cli_commands[] = {
	{"status", "[--verbose]", "health of agent, datapath, Kubernetes input and plugins", NULL},
	{"plugin list", "", "plugins, their generation, state and last outcome", NULL},
	{"plugin load", "NAME [FILE]", "load a plugin", cli_plugin_change},
	{"plugin unload", "NAME", "take a plugin out of its chains", cli_plugin_change},
	{"plugin reload", "NAME [FILE]", "swap a plugin for the file on disk, without a gap",
	 cli_plugin_change},
	{"plugin inspect", "FILE", "show a plugin file's manifest; runs none of its code",
	 cli_plugin_inspect},
	{"plugin new", "NAME [DIR]", "write a new plugin from the template", cli_plugin_new},
	{"chain show", "", "programs of every hook in their order", NULL},
	{"endpoint list", "", "pods of this node and their interfaces", NULL},
	{"identity list", "[FILTER]", "identities and their labels; by number or part of a label",
	 cli_pages},
	{"ip list", "[FILTER]", "addresses and their identities; by prefix or identity", cli_pages},
	{"ct list", "[FILTER...]", "tracked flows; address=, port=, protocol=, frontend=, ...",
	 cli_pages},
	{"ct flush", "[FILTER...]", "forget flows, both halves of each", NULL},
	{"nat list", "[FILTER...]",
	 "flows whose source is replaced: client, frontend, node, backend", cli_pages},
	{"map list", "", "maps, their types and sizes", NULL},
	{"map dump", "NAME", "entries of a map", NULL},
	{"version", "", "versions of this tool and of the running agent", cli_version},
	{"completion", "bash|zsh|fish", "print a completion script", cli_completion},
	{"help", "", "list all commands, those of plugins too", cli_help},
	{NULL, NULL, NULL, NULL},
};

static size_t words_of(const char *name)
{
	size_t n = 1;

	for (; *name; name++)
		n += *name == ' ';
	return n;
}

static bool begins_with(const char *const *words, size_t n_words, const char *name)
{
	for (size_t i = 0; i < n_words; i++) {
		size_t len = strlen(words[i]);

		if (strncmp(name, words[i], len) != 0)
			return false;
		name += len;
		if (*name == '\0')
			return true;
		if (*name++ != ' ')
			return false;
	}
	return false;
}

const struct cli_command *cli_find(const char *const *words, size_t n_words, size_t *ret_used)
{
	const struct cli_command *best = NULL;

	for (const struct cli_command *c = cli_commands; c->name; c++) {
		if (!begins_with(words, n_words, c->name))
			continue;
		if (!best || words_of(c->name) > words_of(best->name))
			best = c;
	}
	*ret_used = best ? words_of(best->name) : 0;
	return best;
}

static void table_add(cJSON *items, const char *name, const char *usage, const char *help)
{
	const cJSON *item;
	cJSON *added;

	cJSON_ArrayForEach (item, items) {
		if (strcmp(pb_json_str(item, "command", ""), name) == 0)
			return;
	}
	added = cJSON_CreateObject();
	cJSON_AddStringToObject(added, "command", name);
	cJSON_AddStringToObject(added, "usage", usage);
	cJSON_AddStringToObject(added, "help", help);
	cJSON_AddItemToArray(items, added);
}

cJSON *cli_command_table(const cJSON *agent)
{
	static const struct pb_json_column columns[] = {{"COMMAND", "command"},
							{"ARGUMENTS", "usage"},
							{"HELP", "help"},
							{NULL, NULL}};
	const cJSON *item;
	cJSON *items, *table = pb_json_table(columns, &items);

	if (!table)
		return NULL;
	for (const struct cli_command *c = cli_commands; c->name; c++)
		table_add(items, c->name, c->usage, c->help);
	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(agent, "items")) {
		table_add(items, pb_json_str(item, "command", ""), pb_json_str(item, "usage", ""),
			  pb_json_str(item, "help", ""));
	}
	return table;
}
