/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `patchbay-cni`: what its files share.
 *
 * Owns one CNI command from the runtime's words to the runtime's answer. Changes nothing on the
 * node by itself: it tells the agent, which does. Nothing of a configuration is used before all of
 * it was found right.
 */
#ifndef PB_CNI_H
#define PB_CNI_H

#include <net/if.h>

#include <base/json.h>
#include <base/scan.h>

#define CNI_CONF_MAX (256U << 10)
#define CNI_INTERFACES_MAX 64
#define CNI_ADDRESSES_MAX 16
#define CNI_ADDRESS_LEN 46

/* Codes of the CNI specification. */
enum cni_code {
	CNI_VERSION_UNKNOWN = 1,
	CNI_ENVIRONMENT = 4,
	CNI_IO = 5,
	CNI_DECODE = 6,
	CNI_CONFIG = 7,
	CNI_TRY_LATER = 11,
};

struct cni_err {
	int code; /* enum cni_code */
	char msg[128];
	char details[1024];
};

/* Sets the error and returns its code. */
int cni_fail(struct cni_err *err, int code, const char *msg, const char *fmt, ...) PB_PRINTF(4, 5);

/* ---- conf.c: what the runtime writes to standard input; pure ---- */

struct cni_interface {
	char name[IF_NAMESIZE];
	bool sandbox; /* inside the pod */
};

struct cni_conf {
	char version[8]; /* "1.0.0"; "" when it couldn't be read */
	char socket[108];
	uint32_t timeout_s;
	struct pb_span prev; /* prevResult as it stands in the text; p NULL: none */
	struct cni_interface interfaces[CNI_INTERFACES_MAX];
	uint32_t n_interfaces;
	char addresses[CNI_ADDRESSES_MAX][CNI_ADDRESS_LEN]; /* the pod's, without prefix lengths */
	uint32_t n_addresses;
};

/* conf->version is set as soon as it is known, so that an error can carry it. */
int cni_conf_parse(const char *text, size_t len, struct cni_conf *conf, struct cni_err *err);

/* ---- env.c: what the runtime says in the environment ---- */

enum cni_command {
	CNI_ADD = 1,
	CNI_DEL = 2,
	CNI_CHECK = 3,
	CNI_VERSION = 4,
};

struct cni_env {
	enum cni_command command;
	char container[129];
	const char *netns; /* "" only with DEL */
	char ifname[IF_NAMESIZE];
	char ns[64]; /* "" only with DEL */
	char pod[254];
	char uid[65]; /* "": not said */
};

int cni_env_read(struct cni_env *ret_env, struct cni_err *err);

/* ---- interface.c ---- */

/* The host side of the pod's interface. */
int cni_interface_find(const struct cni_env *env, const struct cni_conf *conf,
		       char ret_name[IF_NAMESIZE], struct cni_err *err);

/* ---- ask.c ---- */

/* "endpoint add", "endpoint check" or "endpoint delete"; interface NULL: the last. */
int cni_ask(const struct cni_env *env, const struct cni_conf *conf, const char *command,
	    const char *interface, struct cni_err *err);

#endif
