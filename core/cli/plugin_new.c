/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instantiates sdk/template/: file names lose ".tmpl" and "plugin" becomes the plugin's name;
 * in the text @NAME@ becomes the name and @IDENT@ the name as a C identifier.
 */
#include <cli/plugin_new.h>

#include <dirent.h>
#include <sys/stat.h>

#define TEMPLATE_MAX (256 * 1024)
#define SUFFIX ".tmpl"

bool pb_plugin_name_is_valid(const char *name)
{
	return pb_name_valid(name) && name[0] >= 'a' && name[0] <= 'z';
}

static void ident_of(const char *name, char *ident)
{
	do
		*ident++ = *name == '-' ? '_' : *name;
	while (*name++);
}

static int substitute(const char *text, const char *name, struct pb_buf *out)
{
	char ident[PB_NAME_MAX];
	int rc = 0;

	ident_of(name, ident);
	while (*text && rc == 0) {
		size_t plain = strcspn(text, "@");

		rc = pb_buf_append(out, text, plain);
		text += plain;
		if (rc < 0 || !*text)
			break;
		if (strncmp(text, "@NAME@", 6) == 0) {
			rc = pb_buf_append(out, name, strlen(name));
			text += 6;
		} else if (strncmp(text, "@IDENT@", 7) == 0) {
			rc = pb_buf_append(out, ident, strlen(ident));
			text += 7;
		} else {
			rc = pb_buf_append(out, text++, 1);
		}
	}
	return rc;
}

/* "plugin_test.c.tmpl" to "NAME_test.c", "gitignore.tmpl" to ".gitignore". NULL: no template. */
static char *target_name(const char *file, const char *name)
{
	size_t len = strlen(file);

	if (len <= strlen(SUFFIX) || strcmp(file + len - strlen(SUFFIX), SUFFIX) != 0)
		return NULL;
	len -= strlen(SUFFIX);
	if (strncmp(file, "plugin", 6) == 0)
		return pb_sprintf("%s%.*s", name, (int)(len - 6), file + 6);
	return pb_sprintf("%s%.*s", strncmp(file, "gitignore", 9) == 0 ? "." : "", (int)len, file);
}

static int copy_one(const char *template_dir, const char *file, const char *name, const char *dir,
		    struct pb_err *err)
{
	PB_FREE char *from = pb_sprintf("%s/%s", template_dir, file);
	PB_FREE char *target = target_name(file, name);
	PB_FREE char *to = target ? pb_sprintf("%s/%s", dir, target) : NULL;
	PB_BUF_FREE struct pb_buf text = {0};
	PB_BUF_FREE struct pb_buf out = {0};
	int rc;

	if (!target)
		return 0;
	if (!from || !to)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_file_read(from, TEMPLATE_MAX, &text, err);
	if (rc < 0)
		return rc;
	if (substitute(text.data ? text.data : "", name, &out) < 0)
		return pb_err_set(err, -ENOMEM, "%s: out of memory", to);
	rc = pb_file_write(to, out.data, out.len, 0644, err);
	return rc < 0 ? rc : 1;
}

static int copy_all(const char *template_dir, const char *name, const char *dir, struct pb_err *err)
{
	DIR *from = opendir(template_dir);
	const struct dirent *entry;
	int rc = 0, n = 0;

	if (!from)
		return pb_err_set(err, -errno,
				  "template %s: %s; install Patchbay's SDK (make install), or say "
				  "where it is by PATCHBAY_SDK_DIR",
				  template_dir, strerror(errno));
	while (rc >= 0 && (entry = readdir(from))) {
		rc = copy_one(template_dir, entry->d_name, name, dir, err);
		n += rc > 0;
	}
	closedir(from);
	if (rc >= 0 && n == 0)
		rc = pb_err_set(err, -ENOENT, "template %s: no file ends in " SUFFIX, template_dir);
	return rc < 0 ? rc : 0;
}

static void remove_dir(const char *dir)
{
	DIR *d = opendir(dir);
	const struct dirent *entry;

	while (d && (entry = readdir(d)))
		unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
	rmdir(dir);
}

int pb_plugin_new(const char *template_dir, const char *name, const char *dir, struct pb_err *err)
{
	int rc;

	if (!pb_plugin_name_is_valid(name))
		return pb_err_set(
			err, -EINVAL,
			"plugin name \"%s\": use lower case letters, digits and inner dashes, a "
			"letter first, at most %d characters",
			name, PB_NAME_MAX - 1);
	if (mkdir(dir, 0777) < 0 && errno == EEXIST)
		return pb_err_set(err, -EEXIST,
				  "%s: exists already; remove it or name another directory: "
				  "patchbay plugin new %s DIR",
				  dir, name);
	else if (access(dir, W_OK) < 0)
		return pb_err_set(err, -errno, "%s: can't be made: %s", dir, strerror(errno));
	rc = copy_all(template_dir, name, dir, err);
	if (rc < 0)
		remove_dir(dir);
	return rc;
}

int pb_cli_plugin_new(int argc, char **argv)
{
	const char *sdk = getenv("PATCHBAY_SDK_DIR");
	PB_FREE char *template_dir = pb_sprintf("%s/template", sdk && *sdk ? sdk : PB_SDK_DIR);
	const char *name = argc > 0 ? argv[0] : NULL;
	const char *dir = argc > 1 ? argv[1] : name;
	struct pb_err err = {0};
	int rc;

	if (argc < 1 || argc > 2) {
		fprintf(stderr, "usage: patchbay plugin new NAME [DIR]\n");
		return 2;
	}
	rc = template_dir ? pb_plugin_new(template_dir, name, dir, &err)
			  : pb_err_set(&err, -ENOMEM, "out of memory");
	if (rc < 0) {
		fprintf(stderr, "patchbay: %s\n", err.text);
		return rc == -EINVAL ? 2 : 1;
	}
	printf("made plugin %s in %s\n\n"
	       "  cd %s\n"
	       "  make\n"
	       "  make check\n"
	       "  sudo make install\n"
	       "  sudo patchbay plugin load %s\n",
	       name, dir, dir, name);
	return 0;
}
