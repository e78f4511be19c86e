/* SPDX-License-Identifier: Apache-2.0 */
/* Which labels of a pod make its identity, and what their canonical form looks like. */
#include <criterion/criterion.h>

#include <node/labels.h>

/* ---- the filter ---- */

struct filter_case {
	const char *given;
	const char *entries[4];
	const char *counts[8];
	const char *does_not[16];
};

static const struct filter_case filter_cases[] = {
	{"I1 no entries",
	 {NULL},
	 {"app", "app.kubernetes.io/name", "team.example.com/owner", "my-k8s.io", "pod-template",
	  "io.cilium.k8s.namespace.labels.team",
	  "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name"},
	 {"io.kubernetes.container", "kubernetes.io/os", "kubernetes.io", "beta.kubernetes.io/arch",
	  "k8s.io/x", "pod-template-generation", "pod-template-hash", "controller-revision-hash",
	  "annotation.x", "etcd_node", "statefulset.kubernetes.io/pod-name",
	  "apps.kubernetes.io/pod-index"}},
	{"I2 what policies depend on, even if its beginning is left out",
	 {"!io."},
	 {"io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster",
	  "io.cilium.k8s.policy.serviceaccount", "app"},
	 {"io.x"}},
	{"I3 entries that include are the only ones",
	 {"k8s:app"},
	 {"app", "application", "io.kubernetes.pod.namespace",
	  "io.cilium.k8s.namespace.labels.team"},
	 {"tier", "team.example.com/owner"}},
	{"I3 the built-in include doesn't count then",
	 {"tier"},
	 {"tier"},
	 {"app.kubernetes.io/name"}},
	{"I4 entries that leave out", {"!k8s:commit"}, {"app"}, {"commit", "commit-id"}},
	{"I5 the longer entry decides, whatever the order",
	 {"!app", "app.kubernetes.io/name", "!app.kubernetes.io"},
	 {"app.kubernetes.io/name"},
	 {"app", "app.kubernetes.io/version"}},
	{"I5 an entry beats a built-in one of its length",
	 {"pod-template-hash"},
	 {"pod-template-hash"},
	 {"pod-template-generation"}},
	{"I5 of two equal entries the one with ! wins", {"app", "!app", "tier"}, {"tier"}, {"app"}},
	{"I5 a source doesn't make an entry longer", {"any:app", "!k8s:app"}, {NULL}, {"app"}},
	{"I5 labels of a namespace can be left out",
	 {"!io.cilium.k8s.namespace.labels.cost"},
	 {"io.cilium.k8s.namespace.labels.team"},
	 {"io.cilium.k8s.namespace.labels.cost-centre"}},
};

static struct pb_label_filter *filter_of(const char *const *entries)
{
	struct pb_label_filter *filter = NULL;
	size_t n = 0;

	while (entries[n])
		n++;
	cr_assert_eq(pb_label_filter_new((char *const *)entries, n, &filter), 0);
	return filter;
}

Test(labels, I1_I2_I3_I4_I5_filter)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(filter_cases); i++) {
		const struct filter_case *c = &filter_cases[i];
		struct pb_label_filter *filter = filter_of(c->entries);

		for (size_t k = 0; k < PB_ARRAY_LEN(c->counts) && c->counts[k]; k++)
			cr_expect(pb_label_filter_has(filter, c->counts[k]), "%s: %s", c->given,
				  c->counts[k]);
		for (size_t k = 0; k < PB_ARRAY_LEN(c->does_not) && c->does_not[k]; k++)
			cr_expect_not(pb_label_filter_has(filter, c->does_not[k]), "%s: %s",
				      c->given, c->does_not[k]);
		pb_label_filter_free(filter);
	}
}

/* ---- label sets ---- */

#define PAIRS(...)                                                                                 \
	.meta = {.ns = "shop",                                                                     \
		 .labels = (const struct pb_kube_pair[]){__VA_ARGS__},                             \
		 .n_labels = sizeof((const struct pb_kube_pair[]){__VA_ARGS__}) /                  \
			     sizeof(struct pb_kube_pair)}

static char *text_of(const struct pb_buf *labels, uint32_t n)
{
	struct pb_buf text = {0};
	const char *at = labels->data;

	for (uint32_t i = 0; i < n; i++) {
		const char *value = at + strlen(at) + 1;

		pb_buf_printf(&text, "%s%s=%s", i ? " " : "", at, value);
		at = value + strlen(value) + 1;
	}
	cr_assert_eq((size_t)(at - labels->data), labels->len, "a label too many or too few");
	return text.data;
}

static void expect_labels(const struct pb_kube_pod *pod, const struct pb_kube_namespace *ns,
			  const char *expected)
{
	static const char *const none[] = {NULL};
	struct pb_label_filter *filter = filter_of(none);
	PB_BUF_FREE struct pb_buf labels = {0};
	PB_FREE char *text = NULL;
	uint32_t n = 0;

	cr_assert_eq(pb_labels_of_pod(filter, "default", pod, ns, &labels, &n), 0);
	text = text_of(&labels, n);
	cr_expect_str_eq(text, expected);
	pb_label_filter_free(filter);
}

Test(labels, a_pod_has_its_own_labels_and_those_of_where_it_is)
{
	const struct pb_kube_pod pod = {PAIRS({"app", "web"}, {"zone", ""}),
					.service_account = "robot"};
	const struct pb_kube_namespace ns = {PAIRS({"team", "a"})};

	expect_labels(&pod, &ns,
		      "k8s:app=web k8s:io.cilium.k8s.namespace.labels.team=a "
		      "k8s:io.cilium.k8s.policy.cluster=default "
		      "k8s:io.cilium.k8s.policy.serviceaccount=robot "
		      "k8s:io.kubernetes.pod.namespace=shop k8s:zone=");
}

Test(labels, a_pod_without_labels_and_service_account)
{
	const struct pb_kube_pod pod = {.meta = {.ns = "shop"}, .service_account = ""};

	expect_labels(&pod, NULL,
		      "k8s:io.cilium.k8s.policy.cluster=default "
		      "k8s:io.cilium.k8s.policy.serviceaccount=default "
		      "k8s:io.kubernetes.pod.namespace=shop");
}

Test(labels, I7_a_pod_cannot_speak_for_its_namespace)
{
	const struct pb_kube_pod pod = {PAIRS({"app", "web"},
					      {"io.cilium.k8s.namespace.labels.team", "kings"},
					      {"io.cilium.k8s.policy.cluster", "other"},
					      {"io.cilium.k8s.policy.serviceaccount", "root"},
					      {"io.kubernetes.pod.namespace", "kube-system"}),
					.service_account = "robot"};

	expect_labels(&pod, NULL,
		      "k8s:app=web k8s:io.cilium.k8s.policy.cluster=default "
		      "k8s:io.cilium.k8s.policy.serviceaccount=robot "
		      "k8s:io.kubernetes.pod.namespace=shop");
}

Test(labels, I8_sets_that_read_alike_differ)
{
	static const char *const none[] = {NULL};
	const struct pb_kube_pod one = {PAIRS({"a", "b,k8s:c=d"}), .service_account = "x"};
	const struct pb_kube_pod two = {PAIRS({"a", "b"}, {"c", "d"}), .service_account = "x"};
	struct pb_label_filter *filter = filter_of(none);
	PB_BUF_FREE struct pb_buf a = {0}, b = {0};
	uint32_t n = 0;

	cr_assert_eq(pb_labels_of_pod(filter, "default", &one, NULL, &a, &n), 0);
	cr_assert_eq(pb_labels_of_pod(filter, "default", &two, NULL, &b, &n), 0);
	cr_expect(a.len != b.len || memcmp(a.data, b.data, a.len) != 0);
	pb_label_filter_free(filter);
}

Test(labels, many_labels_are_sorted)
{
	struct pb_kube_pair pairs[200];
	char keys[200][8];
	const struct pb_kube_pod pod = {.meta = {.ns = "n",
						 .labels = pairs,
						 .n_labels = PB_ARRAY_LEN(pairs)},
					.service_account = "x"};
	static const char *const none[] = {NULL};
	struct pb_label_filter *filter = filter_of(none);
	PB_BUF_FREE struct pb_buf labels = {0};
	const char *before = "", *at;
	uint32_t n = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(pairs); i++) {
		snprintf(keys[i], sizeof(keys[i]), "x%zu", (i * 37) % 200);
		pairs[i] = (struct pb_kube_pair){keys[i], "v"};
	}
	cr_assert_eq(pb_labels_of_pod(filter, "default", &pod, NULL, &labels, &n), 0);
	cr_expect_eq(n, 203);
	at = labels.data;
	for (uint32_t i = 0; i < n; i++) {
		cr_expect_lt(strcmp(before, at), 0, "%s before %s", before, at);
		before = at;
		at += strlen(at) + 1;
		at += strlen(at) + 1;
	}
	pb_label_filter_free(filter);
}

Test(labels, a_range_has_its_prefix_and_is_of_the_world)
{
	const struct pb_cidr four = {.addr.bytes = {10, 1}, .family = 4, .bits = 16};
	const struct pb_cidr six = {.addr.bytes = {0xfd}, .family = 6, .bits = 8};
	PB_BUF_FREE struct pb_buf labels = {0};
	PB_FREE char *text4 = NULL, *text6 = NULL;
	uint32_t n = 0;

	cr_assert_eq(pb_labels_of_cidr(&four, &labels, &n), 0);
	text4 = text_of(&labels, n);
	cr_expect_str_eq(text4, "cidr:10.1.0.0/16= reserved:world=");
	cr_assert_eq(pb_labels_of_cidr(&six, &labels, &n), 0);
	text6 = text_of(&labels, n);
	cr_expect_str_eq(text6, "cidr:fd00::/8= reserved:world=");
}
