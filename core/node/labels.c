/* SPDX-License-Identifier: Apache-2.0 */
/* The label filter: a table of key prefixes, the longest that matches decides. */
#include <node/labels.h>

#include <arpa/inet.h>

struct rule {
	const char *prefix;
	bool include;
};

/* Kubernetes' own bookkeeping, which would give each pod or each roll-out another identity. */
static const struct rule presets[] = {
	{"io.kubernetes.", false},
	{"kubernetes.io", false},
	{"beta.kubernetes.io", false},
	{"k8s.io", false},
	{"pod-template-generation", false},
	{"pod-template-hash", false},
	{"controller-revision-hash", false},
	{"annotation.", false},
	{"etcd_node", false},
	{"statefulset.kubernetes.io/pod-name", false},
	{"apps.kubernetes.io/pod-index", false},
	{"app.kubernetes.io", true},
};

/* Policies select by them, so they count unless an entry of the admin says otherwise. */
static const struct rule of_namespace = {PB_LABEL_OF_NAMESPACE, true};

struct pb_label_filter {
	bool closed; /* an entry includes: what nothing matches is out */
	size_t n;
	struct {
		char *prefix;
		bool include;
	} rules[];
};

static bool is_mandatory(const char *key)
{
	return strcmp(key, PB_LABEL_NAMESPACE) == 0 || strcmp(key, PB_LABEL_CLUSTER) == 0 ||
	       strcmp(key, PB_LABEL_ACCOUNT) == 0;
}

/* ---- entries ---- */

static const char *after_source(const char *entry)
{
	if (strncmp(entry, "k8s:", 4) == 0 || strncmp(entry, "any:", 4) == 0)
		return entry + 4;
	return entry;
}

int pb_label_filter_new(char *const *entries, size_t n, struct pb_label_filter **ret_filter)
{
	struct pb_label_filter *filter = calloc(1, sizeof(*filter) + n * sizeof(filter->rules[0]));

	if (!filter)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		bool include = entries[i][0] != '!';

		filter->rules[i].prefix = strdup(after_source(entries[i] + !include));
		filter->rules[i].include = include;
		if (!filter->rules[i].prefix) {
			pb_label_filter_free(filter);
			return -ENOMEM;
		}
		filter->closed |= include;
		filter->n++;
	}
	*ret_filter = filter;
	return 0;
}

struct pb_label_filter *pb_label_filter_free(struct pb_label_filter *filter)
{
	for (size_t i = 0; filter && i < filter->n; i++)
		free(filter->rules[i].prefix);
	free(filter);
	return NULL;
}

/* ---- matching ---- */

/* The length of a match plus 1, 0 without one. */
static size_t match(const char *key, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(key, prefix, len) == 0 ? len + 1 : 0;
}

/* Takes a rule in when it matches longer than the best so far. */
static void consider(const char *key, const char *prefix, bool include, struct rule *best,
		     size_t *best_len)
{
	size_t len = match(key, prefix);

	/* Of two entries for one prefix the one that leaves out is the cautious one. */
	if (len > *best_len || (len && len == *best_len && !include)) {
		*best = (struct rule){prefix, include};
		*best_len = len;
	}
}

bool pb_label_filter_has(const struct pb_label_filter *filter, const char *key)
{
	struct rule preset = {"", !filter->closed}, own = {"", !filter->closed};
	size_t preset_len = 0, own_len = 0;

	if (is_mandatory(key))
		return true;
	for (size_t i = 0; i < PB_ARRAY_LEN(presets); i++) {
		if (!(filter->closed && presets[i].include))
			consider(key, presets[i].prefix, presets[i].include, &preset, &preset_len);
	}
	consider(key, of_namespace.prefix, of_namespace.include, &preset, &preset_len);
	for (size_t i = 0; i < filter->n; i++)
		consider(key, filter->rules[i].prefix, filter->rules[i].include, &own, &own_len);
	return own_len && own_len >= preset_len ? own.include : preset.include;
}

/* ---- label sets ---- */

struct label {
	const char *group; /* "" or PB_LABEL_OF_NAMESPACE */
	size_t group_len;
	const char *key;
	const char *value;
};

static unsigned char label_byte(const struct label *label, size_t i)
{
	return (unsigned char)(i < label->group_len ? label->group[i]
						    : label->key[i - label->group_len]);
}

/* As if group and key were one string. */
static int compare_labels(const void *a, const void *b)
{
	for (size_t i = 0;; i++) {
		unsigned char x = label_byte(a, i), y = label_byte(b, i);

		if (x != y || !x)
			return x - y;
	}
}

/* Keys that speak for somebody else than the pod's author. */
static bool is_reserved(const char *key)
{
	return is_mandatory(key) ||
	       strncmp(key, PB_LABEL_OF_NAMESPACE, strlen(PB_LABEL_OF_NAMESPACE)) == 0;
}

static bool ns_label_counts(const struct pb_label_filter *filter, const char *key)
{
	char full[512];
	int len = snprintf(full, sizeof(full), "%s%s", PB_LABEL_OF_NAMESPACE, key);

	return len < (int)sizeof(full) && pb_label_filter_has(filter, full);
}

static uint32_t collect(const struct pb_label_filter *filter, const struct pb_kube_pod *pod,
			const struct pb_kube_namespace *ns, struct label *labels)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < pod->meta.n_labels; i++) {
		const struct pb_kube_pair *pair = &pod->meta.labels[i];

		if (!is_reserved(pair->key) && pb_label_filter_has(filter, pair->key))
			labels[n++] = (struct label){"", 0, pair->key, pair->value};
	}
	for (uint32_t i = 0; ns && i < ns->meta.n_labels; i++) {
		const struct pb_kube_pair *pair = &ns->meta.labels[i];

		if (ns_label_counts(filter, pair->key))
			labels[n++] = (struct label){PB_LABEL_OF_NAMESPACE,
						     sizeof(PB_LABEL_OF_NAMESPACE) - 1, pair->key,
						     pair->value};
	}
	return n;
}

static int write_label(struct pb_buf *out, const struct label *label)
{
	int rc = pb_buf_printf(out, "k8s:%s%s", label->group, label->key);

	if (rc == 0)
		rc = pb_buf_append(out, "", 1);
	return rc < 0 ? rc : pb_buf_append(out, label->value, strlen(label->value) + 1);
}

int pb_labels_of_pod(const struct pb_label_filter *filter, const char *cluster,
		     const struct pb_kube_pod *pod, const struct pb_kube_namespace *ns,
		     struct pb_buf *out, uint32_t *ret_n)
{
	struct label few[64];
	size_t room = pod->meta.n_labels + (ns ? ns->meta.n_labels : 0UL) + 3;
	PB_FREE struct label *many = room > PB_ARRAY_LEN(few) ? calloc(room, sizeof(*many)) : NULL;
	struct label *labels = room > PB_ARRAY_LEN(few) ? many : few;
	/* What the API server writes when the manifest has none. */
	const char *account = *pod->service_account ? pod->service_account : "default";
	uint32_t n;
	int rc = 0;

	if (!labels)
		return -ENOMEM;
	n = collect(filter, pod, ns, labels);
	labels[n++] = (struct label){"", 0, PB_LABEL_NAMESPACE, pod->meta.ns};
	labels[n++] = (struct label){"", 0, PB_LABEL_CLUSTER, cluster};
	labels[n++] = (struct label){"", 0, PB_LABEL_ACCOUNT, account};
	qsort(labels, n, sizeof(*labels), compare_labels);
	pb_buf_reset(out);
	for (uint32_t i = 0; rc == 0 && i < n; i++)
		rc = write_label(out, &labels[i]);
	*ret_n = n;
	return rc;
}

int pb_labels_of_cidr(const struct pb_cidr *cidr, struct pb_buf *out, uint32_t *ret_n)
{
	static const char world[] = "reserved:world\0";
	char text[INET6_ADDRSTRLEN] = "";
	int rc;

	inet_ntop(cidr->family == 6 ? AF_INET6 : AF_INET, cidr->addr.bytes, text, sizeof(text));
	pb_buf_reset(out);
	rc = pb_buf_printf(out, "cidr:%s/%u", text, cidr->bits);
	if (rc == 0)
		rc = pb_buf_append(out, "\0", 2);
	if (rc == 0)
		rc = pb_buf_append(out, world, sizeof(world));
	*ret_n = 2;
	return rc;
}
