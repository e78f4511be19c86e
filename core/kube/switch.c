/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which source feeds the store. The only file that knows the sources by name.
 */
#include <kube/store.h>

#include <dirent.h>

static char *path_of(const struct pb_config *config)
{
	const char *path = config->kubernetes.source == PB_SOURCE_MANIFESTS
				   ? config->kubernetes.manifests
				   : config->kubernetes.kubeconfig;
	PB_FREE char *dir = NULL;
	char *slash;

	if (config->kubernetes.source == PB_SOURCE_NONE || !path)
		return NULL;
	if (*path == '/' || !config->file)
		return strdup(path);
	dir = realpath(config->file, NULL);
	slash = dir ? strrchr(dir, '/') : NULL;
	if (!slash)
		return strdup(path);
	*slash = '\0';
	return pb_sprintf("%s/%s", dir, path);
}

static bool is_same_path(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static int source_new(struct pb_kube *kube, enum pb_kube_source_kind kind, const char *path,
		      struct pb_source **ret_source, struct pb_err *err)
{
	struct pb_sink *sink = (struct pb_sink *)kube;

	switch (kind) {
	case PB_SOURCE_MANIFESTS:
		if (!path)
			return pb_err_set(err, -EINVAL,
					  "kubernetes.manifests: name the directory "
					  "that holds the manifests");
		return pb_source_manifests_new(kube->loop, sink, path, ret_source, err);
	case PB_SOURCE_API:
		return pb_source_api_new(kube->loop, sink, path, ret_source, err);
	case PB_SOURCE_NONE:
	default:
		*ret_source = NULL;
		return 0;
	}
}

static void want_all(struct pb_kube *kube)
{
	for (uint32_t kind = 1; kind < PB_KUBE_KINDS; kind++) {
		if (!kube->stores[kind].watches)
			continue;
		pb_kube_state_forget(&kube->stores[kind]);
		if (kube->source)
			kube->source->ops->want(kube->source, kind, true);
		else
			pb_sink_absent((struct pb_sink *)kube, kind);
	}
}

/* At a start the directory may come later; a running source is not given up for none. */
static int check_directory(const char *path, struct pb_err *err)
{
	DIR *dir = path ? opendir(path) : NULL;

	if (!path || dir) {
		if (dir)
			closedir(dir);
		return 0;
	}
	return pb_err_set(err, -errno, "kubernetes.manifests: %s: %s", path, strerror(errno));
}

/* The new source of a configuration; *ret_source NULL with 0 for none. */
static int source_make(struct pb_kube *kube, enum pb_kube_source_kind kind, const char *path,
		       struct pb_source **ret_source, struct pb_err *err)
{
	int rc = 0;

	if (kube->source && kind == PB_SOURCE_MANIFESTS)
		rc = check_directory(path, err);
	return rc < 0 ? rc : source_new(kube, kind, path, ret_source, err);
}

/* A directory follows its files by itself. A kubeconfig is compared by what was read. */
static bool is_same_directory(const struct pb_kube *kube, enum pb_kube_source_kind kind,
			      const char *path)
{
	return kube->started && kind == kube->source_kind && kind != PB_SOURCE_API &&
	       is_same_path(path, kube->source_path);
}

static bool is_same_source(const struct pb_kube *kube, enum pb_kube_source_kind kind,
			   const struct pb_source *source)
{
	return kube->source && kind == PB_SOURCE_API && kube->source_kind == kind &&
	       kube->source->digest == source->digest;
}

static void source_take(struct pb_kube *kube, enum pb_kube_source_kind kind, char *path,
			struct pb_source *source)
{
	/* A list that the old source began must not be ended by the new one. */
	for (uint32_t k = 1; k < PB_KUBE_KINDS; k++)
		pb_sink_list_abort((struct pb_sink *)kube, k);
	pb_kube_source_drop(kube, kube->source);
	free(kube->source_path);
	kube->source_path = path;
	kube->source_kind = kind;
	kube->source = source;
	kube->started = true;
	want_all(kube);
}

int pb_kube_start(struct pb_kube *kube, const struct pb_config *config, struct pb_err *err)
{
	enum pb_kube_source_kind kind = config->kubernetes.source;
	PB_FREE char *path = path_of(config);
	struct pb_source *source;
	int rc;

	free(PB_TAKE_PTR(kube->source_error));
	if (is_same_directory(kube, kind, path))
		return 0;
	rc = source_make(kube, kind, path, &source, err);
	if (rc < 0) {
		kube->source_error = strdup(err->text);
		if (kube->source && kube->source_error)
			pb_err_set(err, rc, "%s; the source before goes on", kube->source_error);
		return rc;
	}
	if (is_same_source(kube, kind, source))
		pb_kube_source_drop(kube, source);
	else
		source_take(kube, kind, PB_TAKE_PTR(path), source);
	return 0;
}
