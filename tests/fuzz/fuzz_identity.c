/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: strings as labels of a pod, as entries of identity.labels, and as filter and
 * place of a list. A label set comes out sorted, whole, and with the pod's own namespace; a list
 * is a table or an error text.
 */
#include <node/peers_private.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STRINGS 32

/* The strings of the input, ended by NULs; "" where there is none. */
static size_t split(char *text, size_t size, const char **ret_strings)
{
	size_t n = 0;

	for (size_t i = 0; i < STRINGS; i++)
		ret_strings[i] = "";
	for (size_t at = 0; at < size && n < STRINGS; at += strlen(text + at) + 1)
		ret_strings[n++] = text + at;
	return n;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(((const struct pb_kube_pair *)a)->key, ((const struct pb_kube_pair *)b)->key);
}

static void check_labels(const struct pb_buf *labels, uint32_t n, const char *ns)
{
	const char *at = labels->data, *before = "";
	unsigned found = 0;

	for (uint32_t i = 0; i < n; i++) {
		const char *value = at + strlen(at) + 1;

		/* A JSON object may have a key twice; the decoder leaves one. */
		if (strcmp(before, at) > 0)
			abort();
		if (strcmp(at, "k8s:" PB_LABEL_NAMESPACE) == 0 &&
		    (strcmp(value, ns) != 0 || found++))
			abort();
		before = at;
		at = value + strlen(value) + 1;
	}
	if (found != 1 || (size_t)(at - labels->data) != labels->len)
		abort();
}

static void try_labels(const char *const *strings, size_t n)
{
	struct pb_kube_pair pairs[STRINGS / 2];
	struct pb_kube_pod pod = {.service_account = strings[0]};
	struct pb_kube_namespace ns = {0};
	struct pb_label_filter *filter = NULL;
	PB_BUF_FREE struct pb_buf labels = {0};
	uint32_t n_labels = 0;

	for (size_t i = 0; i < STRINGS / 2; i++)
		pairs[i] = (struct pb_kube_pair){strings[2 * i], strings[2 * i + 1]};
	qsort(pairs, STRINGS / 2, sizeof(*pairs), compare_keys);
	pod.meta.ns = strings[1];
	pod.meta.labels = ns.meta.labels = pairs;
	pod.meta.n_labels = STRINGS / 2;
	ns.meta.n_labels = STRINGS / 2;
	if (pb_label_filter_new((char *const *)strings, n < 4 ? n : 4, &filter) < 0)
		return;
	if (pb_labels_of_pod(filter, "default", &pod, &ns, &labels, &n_labels) == 0)
		check_labels(&labels, n_labels, strings[1]);
	pb_label_filter_free(filter);
}

/* ---- lists ---- */

static int put_nothing(void *arg, const struct pb_cidr *prefix,
		       const struct pb_ipcache_value *value)
{
	(void)arg;
	(void)prefix;
	(void)value;
	return 0;
}

static int del_nothing(void *arg, const struct pb_cidr *prefix)
{
	(void)arg;
	(void)prefix;
	return 0;
}

static void check_page(cJSON *page, const struct pb_err *err)
{
	if (page ? !cJSON_GetObjectItemCaseSensitive(page, "items") : !err->text[0])
		abort();
	cJSON_Delete(page);
}

/* Made once: nothing that is tried changes them. */
static struct pb_peers *two_ranges(void)
{
	static struct pb_peers peers;
	static struct pb_ip_claim claims[2];
	const struct pb_ipcache_env ip_env = {.put = put_nothing,
					      .del = del_nothing,
					      .max = {10, 10}};
	const struct pb_ident_env ident_env = {0};
	const struct pb_ip_says says = {.identity = 300, .source = PB_IP_POD, .who = "a/b"};
	const struct pb_cidr four = {.addr.bytes = {10}, .family = 4, .bits = 8};
	const struct pb_cidr six = {.addr.bytes = {0xfd}, .family = 6, .bits = 9};

	if (peers.ipcache)
		return &peers;
	if (pb_ipcache_new(&ip_env, &peers.ipcache) < 0 ||
	    pb_idents_new(&ident_env, &peers.idents) < 0 ||
	    pb_ipcache_claim(peers.ipcache, &claims[0], &four, &says) < 0 ||
	    pb_ipcache_claim(peers.ipcache, &claims[1], &six, &says) < 0)
		abort();
	return &peers;
}

static void try_lists(const char *const *strings)
{
	struct pb_peers *peers = two_ranges();
	struct pb_err err = {0};

	check_page(pb_peers_ips_json(peers, strings[0], strings[1], &err), &err);
	err.text[0] = '\0';
	check_page(pb_peers_identities_json(peers, strings[0], strings[1], &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	PB_FREE char *text = malloc(size + 1);
	const char *strings[STRINGS];
	size_t n;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	n = split(text, size, strings);
	try_labels(strings, n);
	try_lists(strings);
	return 0;
}
