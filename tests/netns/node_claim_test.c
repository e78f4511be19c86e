/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints that a CNI plugin announces: when it is answered, what is left when it fails, and what
 * the next agent knows.
 */
#include "node_bed.h"

#include <dirent.h>

struct answer {
	unsigned times;
	int result;
	char text[512];
	uint32_t endpoint, identity;
};

static void on_answer(void *arg, int result, const char *text, cJSON *json)
{
	struct answer *a = arg;

	a->times++;
	a->result = result;
	snprintf(a->text, sizeof(a->text), "%s", text);
	a->endpoint = (uint32_t)pb_json_num(json, "endpoint", 0);
	a->identity = (uint32_t)pb_json_num(json, "identity", 0);
	cJSON_Delete(json);
}

static bool is_answered(void *arg)
{
	return ((struct answer *)arg)->times > 0;
}

#define WEB(uid_, container_, iface_, more_)                                                       \
	"{\"namespace\":\"shop\",\"name\":\"web\",\"uid\":\"" uid_                                 \
	"\",\"container\":\"" container_ "\",\"interface\":\"" iface_                              \
	"\",\"addresses\":[\"10.1.0.2\"]" more_ "}"
#define WEB_GONE(container_)                                                                       \
	"{\"namespace\":\"shop\",\"name\":\"web\",\"container\":\"" container_ "\"}"

static int records(void)
{
	DIR *dir = opendir("/mnt/endpoints");
	const struct dirent *entry;
	int n = 0;

	cr_assert_not_null(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

Test(node_claim, add_answers_when_hooks_identity_and_record_are_there)
{
	struct bed bed;
	struct answer a = {0};

	bed_setup(&bed);
	uint32_t ifindex = veth("cali1");

	/* Given hooks that take their time, and labels that aren't known */
	add_later = true;
	pb_node_endpoint_add(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &a);
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(a.times, 0);

	/* When the hooks are on, then it still waits for the labels */
	hooks_ended(ifindex, 0, "");
	settle(&bed);
	cr_expect_eq(a.times, 0);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "init");

	/* Until they come */
	add_later = false;
	labels_came("web", 300);
	run_until(&bed.loop, is_answered, &a);
	cr_expect_eq(a.result, 0, "%s", a.text);
	cr_expect_eq(a.identity, 300);
	cr_expect_eq(a.endpoint, on(ifindex)->ep.id);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	cr_expect_eq(records(), 1);
	cr_expect_str_eq(listed(&bed, "shop/web", "source"), "cni");
	bed_end(&bed);
	cr_expect_eq(a.times, 1);
}

static bool no_endpoints(void *arg)
{
	struct bed *bed = arg;
	PB_JSON_FREE cJSON *table = pb_node_json(bed->node);

	return cJSON_GetArraySize(cJSON_GetObjectItem(table, "items")) == 0;
}

Test(node_claim, add_that_cant_keep_its_promise_fails_and_leaves_nothing)
{
	static const struct {
		const char *what, *interface, *make;
		int code;
		const char *text;
	} cases[] = {
		{"no such interface", "none1", "true", -ENODEV, "this node has no interface none1"},
		{"a bridge", "br1", "ip link add br1 type bridge", -EOPNOTSUPP,
		 "not hookable: br1 is a bridge"},
		{"a device of the node", "up0", "ip link add up0 type veth peer name p-up0", -EBUSY,
		 "not hookable: datapath.devices names up0"},
		{"labels that never come", "cali1", "ip link add cali1 type veth peer name p-cali1",
		 -ETIMEDOUT, "the labels of pod shop/web are not known yet"},
	};
	struct bed bed;

	bed_setup(&bed);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct answer a = {0};
		char json[512];

		sh("%s", cases[i].make);
		snprintf(json, sizeof(json),
			 "{\"namespace\":\"shop\",\"name\":\"web\",\"interface\":\"%s\","
			 "\"addresses\":[\"10.1.0.2\"],\"timeout_ms\":1000}",
			 cases[i].interface);
		pb_node_endpoint_add(bed.node, json, on_answer, &a);
		run_until(&bed.loop, is_answered, &a);
		cr_expect_eq(a.result, cases[i].code, "%s: %d %s", cases[i].what, a.result, a.text);
		cr_expect(strstr(a.text, cases[i].text), "%s: %s", cases[i].what, a.text);
		run_until(&bed.loop, no_endpoints, &bed);
		expect_nothing_hooked(&bed);
		cr_expect_eq(records(), 0);
	}
	bed_end(&bed);
}

Test(node_claim, add_of_an_interface_that_goes_away_meanwhile_fails_at_once)
{
	struct bed bed;
	struct answer a = {0};

	bed_setup(&bed);
	uint32_t ifindex = veth("cali1");

	pb_node_endpoint_add(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &a);
	expect_hooked(&bed, ifindex, true);
	sh("ip link del cali1");
	run_until(&bed.loop, is_answered, &a);
	cr_expect_eq(a.result, -ENODEV);
	cr_expect(no_endpoints(&bed));
	bed_end(&bed);
}

static void added(struct bed *bed, const char *json)
{
	struct answer a = {0};

	pb_node_endpoint_add(bed->node, json, on_answer, &a);
	run_until(&bed->loop, is_answered, &a);
	cr_assert_eq(a.result, 0, "%s", a.text);
}

static bool no_records(void *arg)
{
	(void)arg;
	return records() == 0;
}

Test(node_claim, delete_detaches_and_succeeds_as_often_as_it_is_asked)
{
	struct bed bed;
	struct answer a = {0};

	bed_setup(&bed);
	identity_of_pods = 300;
	uint32_t ifindex = veth("cali1");

	added(&bed, WEB("uid-1", "c1", "cali1", ""));

	/* The end of an earlier sandbox changes nothing */
	pb_node_endpoint_delete(bed.node, WEB_GONE("c0"), on_answer, &a);
	cr_expect_eq(a.result, 0);
	cr_expect_not_null(on(ifindex));

	for (unsigned i = 1; i <= 2; i++) {
		pb_node_endpoint_delete(bed.node, WEB_GONE("c1"), on_answer, &a);
		cr_expect_eq(a.result, 0);
		cr_expect_eq(a.times, i + 1);
		cr_expect_null(on(ifindex));
	}
	run_until(&bed.loop, no_records, NULL);
	bed_end(&bed);
}

Test(node_claim, check_compares_with_what_was_announced)
{
	static const struct {
		const char *what, *json;
		int code;
	} cases[] = {
		{"the same", WEB("uid-1", "c1", "cali1", ""), 0},
		{"another sandbox", WEB("uid-1", "c2", "cali1", ""), -ENOENT},
		{"another interface", WEB("uid-1", "c1", "cali2", ""), -ENODEV},
		{"another pod",
		 "{\"namespace\":\"shop\",\"name\":\"db\",\"interface\":\"cali1\","
		 "\"addresses\":[\"10.1.0.2\"]}",
		 -ENOENT},
		{"another address",
		 "{\"namespace\":\"shop\",\"name\":\"web\",\"interface\":\"cali1\","
		 "\"addresses\":[\"10.1.0.3\"]}",
		 -EADDRNOTAVAIL},
		{"not JSON", "{", -EINVAL},
	};
	struct bed bed;

	bed_setup(&bed);
	identity_of_pods = 300;
	veth("cali1");
	added(&bed, WEB("uid-1", "c1", "cali1", ""));
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct answer a = {0};

		pb_node_endpoint_check(bed.node, cases[i].json, on_answer, &a);
		cr_expect_eq(a.result, cases[i].code, "%s: %d %s", cases[i].what, a.result, a.text);
	}
	bed_end(&bed);
}

Test(node_claim, a_wrong_argument_is_refused_by_name_and_changes_nothing)
{
	static const struct {
		const char *json, *text;
	} cases[] = {
		{"", "must be one JSON object"},
		{"[]", "must be one JSON object"},
		{"{} x", "must be one JSON object"},
		{"{}", "namespace: missing"},
		{"{\"namespace\":\"shop\"}", "name: missing"},
		{"{\"namespace\":7}", "namespace: must be a string"},
		{"{\"namespace\":\"Shop\"}", "namespace: must be a string"},
		{"{\"namespace\":\"\"}", "namespace: must be a string"},
		{"{\"namespace\":\"a/b\"}", "namespace: must be a string"},
		{"{\"name\":\"web\",\"name\":\"web\"}", "name: given twice"},
		{"{\"interface\":\"averyveryverylongname\"}",
		 "interface: must be a string of 1 to 15"},
		{"{\"interface\":\"../x\"}", "interface: must be a string"},
		{"{\"addresses\":[]}", "addresses: must be a list"},
		{"{\"addresses\":[\"10.1.0.2/24\"]}", "addresses[0]: must be an IP address"},
		{"{\"timeout_ms\":0}", "timeout_ms: must be a whole number from 1 to 300000"},
		{"{\"timeout_ms\":1.5}", "timeout_ms: must be a whole number"},
		{"{\"colour\":1}", "\"colour\": unknown member"},
		{"{\"ifindex\":1}", "\"ifindex\": unknown member"},
	};
	struct bed bed;

	bed_setup(&bed);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct answer a = {0};

		pb_node_endpoint_add(bed.node, cases[i].json, on_answer, &a);
		cr_expect_eq(a.result, -EINVAL, "%s", cases[i].json);
		cr_expect(strstr(a.text, cases[i].text), "%s: %s", cases[i].json, a.text);
	}
	cr_expect(no_endpoints(&bed));
	bed_end(&bed);
}

Test(node_claim, an_early_endpoint_becomes_the_announced_one_without_a_moment_unhooked)
{
	struct bed bed;

	bed_setup(&bed);
	tell_node("10.1.0.0", 24, NULL, 0);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	expect_hooked(&bed, ifindex, true);
	uint32_t id = on(ifindex)->ep.id;

	identity_of_pods = 300;
	added(&bed, WEB("uid-1", "c1", "cali1", ""));
	cr_expect_eq(on(ifindex)->ep.id, id);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node_claim, a_pod_list_that_lags_behind_takes_nothing_away)
{
	struct bed bed;
	struct pod old;

	/* Given the pod list's web-1, still on its way out */
	bed_setup(&bed);
	identity_of_pods = 300;
	pod_init(&old, "web", "uid-1", "10.1.0.9", NULL);
	tell(PB_KUBE_PUT, &old);
	uint32_t ifindex = veth("cali1");

	/* When its successor of the same name is announced */
	added(&bed, WEB("uid-2", "c2", "cali1", ""));
	unhooks = 0;
	old.pod.meta.version = "7";
	tell(PB_KUBE_PUT, &old);
	old.pod.phase = PB_POD_FAILED;
	tell(PB_KUBE_PUT, &old);
	tell(PB_KUBE_DELETE, &old);
	settle(&bed);
	cr_expect_not_null(on(ifindex));

	/* A third pod of the name is not behind */
	pod_init(&old, "web", "uid-3", "10.1.0.4", NULL);
	tell(PB_KUBE_PUT, &old);
	settle(&bed);
	cr_expect_null(on(ifindex));
	bed_end(&bed);
}

Test(node_claim, the_next_agent_knows_announced_endpoints_and_drops_those_whose_pod_went)
{
	struct bed bed;
	struct pod pod;
	struct answer a = {0};

	/* Given two announced endpoints, of which the pod list has no addresses yet */
	bed_setup(&bed);
	identity_of_pods = 300;
	uint32_t web = veth("cali1");
	uint32_t db = veth("cali2");

	added(&bed, WEB("uid-1", "c1", "cali1", ""));
	added(&bed, "{\"namespace\":\"shop\",\"name\":\"db\",\"interface\":\"cali2\","
		    "\"addresses\":[\"10.1.0.3\"]}");
	uint32_t id = on(web)->ep.id;

	/* When the agent restarts and labels aren't known yet */
	bed_stop(&bed);
	identity_of_pods = 0;
	unhooks = 0;
	bed_start(&bed);
	settle(&bed);
	cr_expect_eq(on(web)->ep.identity, 300);
	cr_expect_eq(on(web)->ep.id, id);
	pb_node_endpoint_check(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &a);
	cr_expect_eq(a.result, 0, "%s", a.text);

	/* And the list has one of the two */
	pod_init(&pod, "web", "uid-1", NULL, NULL);
	tell(PB_KUBE_PUT, &pod);
	synced();
	expect_hooked(&bed, db, false);
	cr_expect_not_null(on(web));
	cr_expect_eq(unhooks, 1);
	bed_end(&bed);
	cr_expect_eq(records(), 1);
}

Test(node_claim, records_that_cant_be_read_or_whose_device_is_gone_are_removed)
{
	struct bed bed;

	bed_setup(&bed);
	bed_stop(&bed);
	sh("echo '{' >/mnt/endpoints/7; mkdir -p /mnt/endpoints; : >/mnt/endpoints/8");
	sh("echo '{\"namespace\":\"shop\",\"name\":\"db\",\"interface\":\"cali2\",\"addresses\":"
	   "[\"10.1.0.3\"],\"endpoint\":9,\"ifindex\":4711}' >/mnt/endpoints/9");
	bed_start(&bed);
	settle(&bed);
	cr_expect_eq(records(), 0);
	cr_expect(no_endpoints(&bed));
	bed_end(&bed);
}

Test(node_claim, an_agent_that_ends_answers_who_waits)
{
	struct bed bed;
	struct answer a = {0};

	bed_setup(&bed);
	veth("cali1");
	pb_node_endpoint_add(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &a);
	bed_end(&bed);
	cr_expect_eq(a.times, 1);
	cr_expect_eq(a.result, -ESHUTDOWN);
}

Test(node_claim, who_comes_when_very_many_wait_is_told_to_try_again)
{
	struct bed bed;
	struct answer waiting[128] = {{0}}, late = {0}, gone = {0};

	/* Given as many pods without labels as may wait */
	bed_setup(&bed);
	for (size_t i = 0; i < PB_ARRAY_LEN(waiting); i++) {
		char json[256];

		snprintf(json, sizeof(json),
			 "{\"namespace\":\"shop\",\"name\":\"p%zu\",\"interface\":\"cali%zu\","
			 "\"addresses\":[\"10.1.1.%zu\"]}",
			 i, i, i);
		pb_node_endpoint_add(bed.node, json, on_answer, &waiting[i]);
	}

	/* When one more comes */
	pb_node_endpoint_add(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &late);
	cr_expect_eq(late.result, -EAGAIN);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "", "nothing is kept of it");

	/* Then there is room again as soon as one waits no longer */
	pb_node_endpoint_delete(bed.node, "{\"namespace\":\"shop\",\"name\":\"p7\"}", on_answer,
				&gone);
	cr_expect_eq(gone.result, 0);
	late = (struct answer){0};
	pb_node_endpoint_add(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer, &late);
	cr_expect_eq(late.times, 0, "%s", late.text);
	bed_end(&bed);
	cr_expect_eq(late.times, 1);
}

Test(node_claim, an_announcement_that_cant_succeed_costs_the_pod_nothing)
{
	static const struct {
		const char *what, *json;
		int code;
	} cases[] = {
		{"no such interface", WEB("uid-1", "c2", "none1", ""), -ENODEV},
		{"nor with another uid", WEB("uid-2", "c2", "none1", ""), -ENODEV},
		{"a device of the node", WEB("uid-2", "c2", "up0", ""), -EBUSY},
		{"another pod's interface", WEB("uid-2", "c2", "cali2", ""), -EAGAIN},
	};
	struct bed bed;

	bed_setup(&bed);
	identity_of_pods = 300;
	veth("up0");
	veth("cali2");
	uint32_t ifindex = veth("cali1");

	added(&bed, WEB("uid-1", "c1", "cali1", ""));
	added(&bed, "{\"namespace\":\"shop\",\"name\":\"db\",\"interface\":\"cali2\","
		    "\"addresses\":[\"10.1.0.3\"]}");
	unhooks = 0;
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct answer a = {0}, check = {0};

		pb_node_endpoint_add(bed.node, cases[i].json, on_answer, &a);
		cr_expect_eq(a.result, cases[i].code, "%s: %d %s", cases[i].what, a.result, a.text);
		pb_node_endpoint_check(bed.node, WEB("uid-1", "c1", "cali1", ""), on_answer,
				       &check);
		cr_expect_eq(check.result, 0, "%s: %s", cases[i].what, check.text);
	}
	settle(&bed);
	cr_expect_not_null(on(ifindex));
	cr_expect_eq(unhooks, 0);
	cr_expect_eq(records(), 2);
	bed_end(&bed);
}

Test(node_claim, a_pod_announced_anew_has_no_moment_unhooked)
{
	struct bed bed;

	/* Given an announced pod */
	bed_setup(&bed);
	identity_of_pods = 300;
	uint32_t first = veth("cali1");
	uint32_t second = veth("cali2");

	added(&bed, WEB("uid-1", "c1", "cali1", ""));
	uint32_t id = on(first)->ep.id;

	/* When its successor has the same interface */
	added(&bed, WEB("uid-2", "c2", "cali1", ""));
	cr_expect_eq(on(first)->ep.identity, 300);
	cr_expect_neq(on(first)->ep.id, id, "another pod is another endpoint");

	/* And when that gets another one, the old one is nobody's until it goes */
	added(&bed, WEB("uid-2", "c3", "cali2", ""));
	cr_expect_eq(on(second)->ep.identity, 300);
	cr_expect_eq(on(first)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(unhooks, 0);
	sh("ip link del cali1");
	expect_hooked(&bed, first, false);
	cr_expect_not_null(on(second));
	bed_end(&bed);
}
