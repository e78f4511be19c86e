/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a directory of manifests, away from the loop.
 *
 * Owns the job that the thread pool runs: walk the directory, read and decode what changed.
 * A job touches nothing but itself, the file system, the inotify instance (adding watches) and
 * the pool of interned strings; the loop thread applies what it found.
 */
#ifndef PB_KUBE_MANIFESTS_H
#define PB_KUBE_MANIFESTS_H

#include <sys/stat.h>
#include <time.h>

#include <kube/object.h>

/* The largest file that is read. */
#define PB_MANIFEST_MAX (128U << 20)
/* How deep subdirectories are followed. */
#define PB_MANIFEST_DEPTH 4

/* A file that looks like this again has not changed. */
struct pb_manifest_mark {
	uint64_t dev;
	uint64_t ino;
	int64_t size;
	struct timespec mtime;
	struct timespec ctime;
};

/* One object of a file. */
struct pb_manifest_object {
	struct pb_kube_object *object; /* NULL: it was refused, `text` says why */
	uint64_t key;		       /* of kind, namespace and name */
	uint32_t kind;
	char *text; /* refusal or warning; NULL: none */
};

enum pb_manifest_outcome {
	PB_MANIFEST_READ = 0,
	PB_MANIFEST_SAME = 1,	/* not read: unchanged */
	PB_MANIFEST_FAILED = 2, /* `error` says why; what it held before stays */
	PB_MANIFEST_GONE = 3,
};

struct pb_manifest_file {
	struct pb_manifest_file *next;
	enum pb_manifest_outcome outcome;
	struct pb_manifest_mark mark;
	struct pb_manifest_object *objects;
	size_t n_objects, cap_objects;
	char *error;
	bool is_busy; /* of a known one: in the middle of a change, not to be read now */
	char path[];  /* below the directory */
};

struct pb_manifest_dir {
	struct pb_manifest_dir *next;
	int wd;
	char path[]; /* below the directory; "" for itself, else with a slash at its end */
};

struct pb_manifest_job {
	char *directory;
	int inotify_fd;
	uint32_t kinds;	 /* bits of the kinds to decode */
	bool list;	 /* walk the whole directory; else read `files` as they are named */
	bool force;	 /* read files that have not changed too */
	size_t text_len; /* bytes that were read */
	/*
	 * In: files by name; when listing those that are known, with their marks, sorted by name
	 * in `known`. Out: files with their outcome; when listing only those that are there.
	 */
	struct pb_manifest_file *files;
	struct pb_manifest_file **known;
	size_t n_known;
	struct pb_manifest_dir *dirs; /* out, when listing */
	int rc;			      /* the directory itself could not be read */
	struct pb_err err;
};

struct pb_manifest_file *pb_manifest_file_new(const char *path);
/* Frees a whole list, with the objects that nobody took. */
void pb_manifest_files_free(struct pb_manifest_file *files);
/* NULL is fine. */
void pb_manifest_job_free(struct pb_manifest_job *job);
void pb_manifest_job_run(struct pb_manifest_job *job);
/* What inotify has to report about a directory. */
uint32_t pb_manifest_events(void);
/* True for *.yaml, *.yml and *.json that are no editor's or tool's hidden file. */
bool pb_manifest_is_name(const char *name);

/* Reads one open file; the fuzz target's entry. json: as JSON instead of YAML. */
int pb_manifest_file_parse(FILE *in, bool json, uint32_t kinds, struct pb_manifest_file *file,
			   size_t *ret_len, struct pb_err *err);
uint64_t pb_manifest_key(uint32_t kind, const char *ns, const char *name);

#endif
