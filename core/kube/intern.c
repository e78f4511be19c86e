/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of interned strings. Locked, because manifests are decoded on the thread pool; a
 * string lives until its last reference goes, on whatever thread.
 */
#include <kube/object.h>

#define HASH_NONFATAL_OOM 1
#include <pthread.h>
#include <uthash.h>

/* Half a million names. A name that doesn't fit is met as one without memory. */
#define POOL_MAX ((size_t)64 * 1024 * 1024)

struct interned {
	UT_hash_handle hh;
	uint32_t refs;
	char text[];
};

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static struct interned *pool;
static size_t pool_bytes;

static struct interned *interned_of(const char *text)
{
	return (struct interned *)(uintptr_t)(text - offsetof(struct interned, text));
}

static struct interned *interned_new(const char *text, size_t len)
{
	struct interned *string = NULL;
	size_t size = sizeof(*string) + len + 1;

	if (size <= POOL_MAX - pool_bytes)
		string = calloc(1, size);
	if (!string)
		return NULL;
	memcpy(string->text, text, len);
	HASH_ADD_KEYPTR(hh, pool, string->text, len, string);
	if (!string->hh.tbl) {
		free(string);
		return NULL;
	}
	pool_bytes += size;
	return string;
}

const char *pb_kube_intern(const char *text, size_t len)
{
	struct interned *string;

	if (len == 0)
		return "";
	pthread_mutex_lock(&pool_lock);
	HASH_FIND(hh, pool, text, len, string);
	if (!string)
		string = interned_new(text, len);
	if (string)
		string->refs++;
	pthread_mutex_unlock(&pool_lock);
	return string ? string->text : NULL;
}

void pb_kube_intern_ref(const char *interned, uint32_t more)
{
	if (!*interned)
		return;
	pthread_mutex_lock(&pool_lock);
	interned_of(interned)->refs += more;
	pthread_mutex_unlock(&pool_lock);
}

void pb_kube_intern_lock(void)
{
	pthread_mutex_lock(&pool_lock);
}

void pb_kube_intern_unlock(void)
{
	pthread_mutex_unlock(&pool_lock);
}

void pb_kube_intern_drop(const char *interned)
{
	struct interned *string;

	if (!*interned)
		return;
	string = interned_of(interned);
	if (--string->refs)
		return;
	pool_bytes -= sizeof(*string) + string->hh.keylen + 1;
	HASH_DEL(pool, string);
	free(string);
}

void pb_kube_intern_unref(const char *interned)
{
	pthread_mutex_lock(&pool_lock);
	pb_kube_intern_drop(interned);
	pthread_mutex_unlock(&pool_lock);
}

size_t pb_kube_intern_count(void)
{
	size_t n;

	pthread_mutex_lock(&pool_lock);
	n = HASH_COUNT(pool);
	pthread_mutex_unlock(&pool_lock);
	return n;
}
