/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completion scripts, written from the command table: first words, second words of each first
 * word, options. File names are offered where the usage says FILE.
 */
#include <cli/cli.h>

static const char option_words[] =
	"--output --socket --config --timeout --help --version --verbose --type";

struct first_word {
	char name[64];
	bool alone;	    /* a command by itself */
	struct pb_buf next; /* second words, separated by blanks */
	const char *help;
};

struct words {
	struct first_word *list;
	size_t n;
};

/* Only what is safe unquoted in every shell; commands of plugins are registered by plugins. */
static bool is_plain(const char *word)
{
	return *word && word[strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789-_ ")] == '\0';
}

static struct first_word *word_get(struct words *w, const char *name, size_t len)
{
	struct first_word *grown;

	for (size_t i = 0; i < w->n; i++) {
		if (strlen(w->list[i].name) == len && strncmp(w->list[i].name, name, len) == 0)
			return &w->list[i];
	}
	grown = reallocarray(w->list, w->n + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	w->list = grown;
	memset(&grown[w->n], 0, sizeof(*grown));
	memcpy(grown[w->n].name, name, len);
	return &w->list[w->n++];
}

static void words_free(struct words *w)
{
	for (size_t i = 0; i < w->n; i++)
		pb_buf_free(&w->list[i].next);
	free(w->list);
}

static int words_read(const cJSON *table, struct words *w)
{
	const cJSON *item;

	cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(table, "items")) {
		const char *name = pb_json_str(item, "command", "");
		size_t len = strcspn(name, " ");
		struct first_word *first;

		if (!is_plain(name) || len == 0 || len >= sizeof(first->name))
			continue;
		first = word_get(w, name, len);
		if (!first)
			return -ENOMEM;
		if (name[len] == '\0') {
			first->alone = true;
			first->help = pb_json_str(item, "help", "");
		} else {
			pb_buf_printf(&first->next, "%s%.*s", first->next.len ? " " : "",
				      (int)strcspn(name + len + 1, " "), name + len + 1);
		}
	}
	/* The table names the shells in its usage. */
	for (size_t i = 0; i < w->n; i++) {
		if (strcmp(w->list[i].name, "completion") == 0)
			return pb_buf_printf(&w->list[i].next, "bash zsh fish");
	}
	return 0;
}

static void first_words(const struct words *w, struct pb_buf *out)
{
	for (size_t i = 0; i < w->n; i++)
		pb_buf_printf(out, "%s%s", i ? " " : "", w->list[i].name);
}

/* zsh runs the bash function through its own emulation, so both complete alike. */
static void bash_script(const struct words *w, bool zsh, struct pb_buf *out)
{
	if (zsh)
		pb_buf_printf(out,
			      "#compdef patchbay\nautoload -U +X bashcompinit && bashcompinit\n");
	pb_buf_printf(
		out,
		"_patchbay()\n{\n"
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
		"\tlocal i words=()\n"
		"\tCOMPREPLY=()\n"
		"\tcase $prev in\n"
		"\t-o|--output) COMPREPLY=($(compgen -W 'table json' -- \"$cur\")); return;;\n"
		"\t-s|--socket|-c|--config) COMPREPLY=($(compgen -f -- \"$cur\")); return;;\n"
		"\t-t|--timeout|--type) return;;\n"
		"\tesac\n"
		"\tif [[ $cur == -* ]]; then\n"
		"\t\tCOMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n\t\treturn\n\tfi\n"
		"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
		"\t\tcase ${COMP_WORDS[i]} in\n"
		"\t\t-o|--output|-s|--socket|-c|--config|-t|--timeout|--type) i=$((i + 1));;\n"
		"\t\t-*) ;;\n"
		"\t\t*) words+=(\"${COMP_WORDS[i]}\");;\n"
		"\t\tesac\n\tdone\n"
		"\tcase \"${words[*]}\" in\n"
		"\t'') COMPREPLY=($(compgen -W '",
		option_words);
	first_words(w, out);
	pb_buf_printf(out, "' -- \"$cur\"));;\n");
	for (size_t i = 0; i < w->n; i++) {
		if (w->list[i].next.len)
			pb_buf_printf(out, "\t'%s') COMPREPLY=($(compgen -W '%s' -- \"$cur\"));;\n",
				      w->list[i].name, w->list[i].next.data);
	}
	pb_buf_printf(out, "\t'plugin inspect'|'plugin load '*|'plugin reload '*) "
			   "COMPREPLY=($(compgen -f -- \"$cur\"));;\n"
			   "\tesac\n}\ncomplete -o filenames -F _patchbay patchbay\n");
}

static void fish_script(const struct words *w, struct pb_buf *out)
{
	pb_buf_printf(out,
		      "complete -c patchbay -f\n"
		      "complete -c patchbay -s o -l output -x -a 'table json' -d 'output format'\n"
		      "complete -c patchbay -s s -l socket -r -F -d 'control socket'\n"
		      "complete -c patchbay -s c -l config -r -F -d 'configuration file'\n"
		      "complete -c patchbay -s t -l timeout -x -d 'seconds to wait'\n"
		      "complete -c patchbay -s h -l help -d 'show help'\n"
		      "complete -c patchbay -s V -l version -d 'show versions'\n"
		      "complete -c patchbay -n __fish_use_subcommand -a '");
	first_words(w, out);
	pb_buf_printf(out, "'\n");
	for (size_t i = 0; i < w->n; i++) {
		if (w->list[i].next.len)
			pb_buf_printf(
				out,
				"complete -c patchbay -n '__fish_seen_subcommand_from %s; and "
				"not __fish_seen_subcommand_from %s' -a '%s'\n",
				w->list[i].name, w->list[i].next.data, w->list[i].next.data);
	}
	pb_buf_printf(out, "complete -c patchbay -n '__fish_seen_subcommand_from plugin; and "
			   "__fish_seen_subcommand_from inspect load reload' -F\n");
}

char *cli_completion_script(const char *shell, const cJSON *table)
{
	struct words w = {0};
	struct pb_buf out = {0};

	if (words_read(table, &w) == 0) {
		if (strcmp(shell, "fish") == 0)
			fish_script(&w, &out);
		else if (strcmp(shell, "bash") == 0 || strcmp(shell, "zsh") == 0)
			bash_script(&w, *shell == 'z', &out);
	}
	words_free(&w);
	return out.data;
}
