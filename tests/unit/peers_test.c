/* SPDX-License-Identifier: Apache-2.0 */
/* Who is who: pods, namespaces and nodes come and go; what the maps and the topics say of them. */
#include "peers_harness.h"

TestSuite(peers, .init = harness_start, .fini = harness_stop);

/* A namespace and two nodes, as most cases want them. */
static void given_a_cluster(void)
{
	put_namespace("shop", "team=a");
	put_node("node-a", "10.1.0.1");
	put_node("node-b", "10.1.0.2,fd01::2");
	/* So that pods get their numbers in the order in which a test puts them. */
	settle();
}

static const struct pod web = {.ns = "shop",
			       .name = "web-1",
			       .labels = "app=web",
			       .ips = "10.0.0.1,fd00::1",
			       .node = "node-b"};
static const struct pod web2 = {
	.ns = "shop", .name = "web-2", .labels = "app=web", .ips = "10.0.0.2", .node = "node-b"};
static const struct pod db = {
	.ns = "shop", .name = "db-1", .labels = "app=db", .ips = "10.0.0.3", .node = "node-a"};

Test(peers, I9_I16_pods_with_equal_labels)
{
	given_a_cluster();
	put_pod(&web);
	put_pod(&web2);
	put_pod(&db);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);
	cr_expect_eq(lookup("fd00::1"), 256, "dual stack");
	cr_expect_eq(lookup("10.0.0.2"), 256);
	cr_expect_eq(lookup("10.0.0.3"), 257);
	cr_expect_eq(lookup("10.9.9.9"), PB_IDENTITY_WORLD);
	cr_expect_eq(lookup_value("10.0.0.1").node4, address("10.1.0.2").addr.v4);
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), 257);
	cr_expect_str_eq(take_log(), "+256 +257 shop/db-1:257 identities! ");
	delete_object(PB_KUBE_POD, "shop", "web-1");
	settle();
	cr_expect_eq(lookup("10.0.0.1"), PB_IDENTITY_WORLD);
	cr_expect(is_published(256), "web-2 has it");
	delete_object(PB_KUBE_POD, "shop", "web-2");
	settle();
	cr_expect_str_eq(take_log(), "-256 ");
}

Test(peers, I27_labels_of_a_pod_change)
{
	struct pod changed = db;

	given_a_cluster();
	put_pod(&db);
	all_listed();
	settle();
	take_log();
	changed.labels = "app=db,tier=gold";
	put_pod(&changed);
	settle();
	cr_expect_eq(lookup("10.0.0.3"), 257);
	cr_expect_str_eq(take_log(), "+257 shop/db-1:257 -256 ",
			 "the new one, whoever has it, then the old one");
	/* A label that doesn't count. */
	map_writes();
	changed.labels = "app=db,tier=gold,pod-template-hash=x";
	put_pod(&changed);
	settle();
	cr_expect_str_eq(take_log(), "");
	cr_expect_eq(map_writes(), 0);
}

Test(peers, I27_labels_of_a_namespace_change)
{
	char name[16], ip[16];
	struct pod pod = {
		.ns = "shop", .name = name, .labels = "app=web", .ips = ip, .node = "node-b"};

	given_a_cluster();
	for (unsigned i = 1; i <= 100; i++) {
		snprintf(name, sizeof(name), "web-%u", i);
		snprintf(ip, sizeof(ip), "10.0.0.%u", i);
		put_pod(&pod);
	}
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.77"), 256);
	take_log();
	put_namespace("shop", "team=b");
	settle();
	for (unsigned i = 1; i <= 100; i++) {
		snprintf(ip, sizeof(ip), "10.0.0.%u", i);
		cr_expect_eq(lookup(ip), 257);
	}
	cr_expect_str_eq(take_log(), "+257 -256 ");
	/* And back, within the time of grace. */
	put_namespace("shop", "team=a");
	settle();
	cr_expect_str_eq(take_log(), "+256 -257 ");
}

Test(peers, I25_I26_pods_before_their_namespace)
{
	struct pod homeless = {.ns = "nowhere", .name = "x", .ips = "10.0.0.9", .node = "node-b"};

	put_node("node-b", "10.1.0.2");
	put_pod(&web);
	put_pod(&homeless);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), PB_IDENTITY_INIT);
	put_namespace("shop", "team=a");
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);
	cr_expect_eq(lookup("10.0.0.9"), PB_IDENTITY_INIT);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.9"), 257, "its namespace has no labels");
}

Test(peers, I27_a_namespace_that_changes_all_the_time_holds_up_no_other)
{
	char name[16], ip[32], label[16];

	put_namespace("busy", "");
	put_namespace("shop", "team=a");
	for (unsigned i = 0; i < 2000; i++) {
		struct pod pod = {.ns = "busy", .name = name, .ips = ip, .node = "node-b"};

		snprintf(name, sizeof(name), "p%u", i);
		snprintf(ip, sizeof(ip), "10.2.%u.%u", i / 200, i % 200 + 1);
		put_pod(&pod);
	}
	put_pod(&web);
	all_listed();
	settle();
	uint32_t before = pb_peers_pod(h.peers, "shop", "web-1");

	/* One of its changes comes before every step of the work that the last one made. */
	for (unsigned i = 0; i < 4000; i++) {
		snprintf(label, sizeof(label), "n=%u", i % 2);
		put_namespace("busy", label);
		if (i == 1)
			put_namespace("shop", "team=b");
		uv_run(&h.loop, UV_RUN_NOWAIT);
	}
	cr_expect_neq(pb_peers_pod(h.peers, "shop", "web-1"), before);
}

/* Policies select by what labels of a namespace are not, so "none yet" must not mean "none". */
Test(peers, I25_I26_a_new_pod_before_its_new_namespace, .timeout = 60)
{
	struct pod homeless = {.ns = "nowhere", .name = "x", .ips = "10.0.0.9", .node = "node-b"};

	given_a_cluster();
	all_listed();
	put_namespace("other", "");
	delete_object(PB_KUBE_NAMESPACE, "", "shop");
	settle();
	put_pod(&web);
	put_pod(&homeless);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), PB_IDENTITY_INIT);
	cr_expect_eq(lookup("10.0.0.9"), PB_IDENTITY_INIT);
	put_namespace("shop", "team=a");
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);

	/* The watch of namespaces is ahead this time: the pods' deletion is still to come. */
	delete_object(PB_KUBE_NAMESPACE, "", "shop");
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);

	/* What nobody ever lists has no labels. */
	while (lookup("10.0.0.9") == PB_IDENTITY_INIT)
		uv_run(&h.loop, UV_RUN_ONCE);
	cr_expect_eq(lookup("10.0.0.9"), 257);
}

Test(peers, I24_a_pod_waits_for_its_nodes_addresses)
{
	put_namespace("shop", "team=a");
	put_pod(&web);
	put_pod(&db);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), PB_IDENTITY_INIT);
	cr_expect_neq(lookup("10.0.0.3"), PB_IDENTITY_INIT, "this node's own don't wait");
	put_node("node-b", "10.1.0.2");
	settle();
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_REMOTE_NODE);
	cr_expect_eq(lookup("10.0.0.1"), pb_peers_pod(h.peers, "shop", "web-1"));
	cr_expect_neq(lookup("10.0.0.1"), PB_IDENTITY_INIT);
}

Test(peers, I24_a_node_that_never_comes)
{
	put_namespace("shop", "team=a");
	put_pod(&web);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);
	cr_expect_eq(lookup_value("10.0.0.1").node4, 0);
	put_node("node-b", "10.1.0.2");
	settle();
	cr_expect_eq(lookup_value("10.0.0.1").node4, address("10.1.0.2").addr.v4);
}

Test(peers, I20_I21_finished_pods_and_those_of_the_host)
{
	struct pod job = {.ns = "shop",
			  .name = "job",
			  .labels = "app=job",
			  .ips = "10.0.0.1",
			  .node = "node-b",
			  .phase = "Succeeded"};
	struct pod proxy = {.ns = "shop",
			    .name = "proxy",
			    .labels = "app=proxy",
			    .ips = "10.1.0.1",
			    .node = "node-a",
			    .host_network = true};

	given_a_cluster();
	put_pod(&web);
	put_pod(&job);
	put_pod(&proxy);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256, "the one that isn't finished");
	cr_expect_eq(lookup("10.1.0.1"), PB_IDENTITY_HOST);
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "proxy"), PB_IDENTITY_HOST);
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "job"), PB_IDENTITY_UNKNOWN);
	cr_expect_eq(map_identities(), 1, "neither has a number");
}

Test(peers, I19_an_address_that_two_pods_claim)
{
	struct pod old = web, new = db;

	given_a_cluster();
	new.ips = "10.0.0.1";
	new.phase = "Pending";
	put_pod(&old);
	put_pod(&new);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256, "the one that runs");
	new.phase = "Running";
	put_pod(&new);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 257, "both run: the later one");
	delete_object(PB_KUBE_POD, "shop", "db-1");
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);
}

Test(peers, I17_I18_an_endpoint_knows_better_than_kubernetes)
{
	const struct pb_kube_addr ips[] = {address("10.0.0.30"), address("fd00::30")};

	given_a_cluster();
	put_pod(&db);
	all_listed();
	settle();
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", ips, 2), 0);
	cr_expect_eq(lookup("10.0.0.30"), 256);
	cr_expect_eq(lookup("fd00::30"), 256);
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_WORLD, "what Kubernetes says is outdated");
	cr_expect_eq(lookup_value("10.0.0.30").source, PB_IP_LOCAL_POD);
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", NULL, 0), 0);
	cr_expect_eq(lookup("10.0.0.30"), PB_IDENTITY_WORLD);
	cr_expect_eq(lookup("10.0.0.3"), 256);
}

Test(peers, an_endpoint_before_and_after_its_pod)
{
	const struct pb_kube_addr ip = address("10.0.0.3");

	given_a_cluster();
	all_listed();
	settle();
	take_log();
	/* CNI is faster than the watch. */
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", &ip, 1), 0);
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), PB_IDENTITY_UNKNOWN);
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_INIT);
	put_pod(&db);
	settle();
	cr_expect_eq(lookup("10.0.0.3"), 256);
	cr_expect_str_eq(take_log(), "+256 shop/db-1:256 ");
	/* And the object goes before the endpoint. */
	delete_object(PB_KUBE_POD, "shop", "db-1");
	settle();
	cr_expect_eq(lookup("10.0.0.3"), 256);
	cr_expect_str_eq(take_log(), "");
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", NULL, 0), 0);
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_WORLD);
	cr_expect_str_eq(take_log(), "-256 ");
}

/* ---- nodes ---- */

Test(peers, I22_I23_addresses_of_nodes)
{
	const struct pb_kube_addr own[] = {address("192.168.0.7"), address("10.1.0.1")};

	given_a_cluster();
	cr_assert_eq(pb_peers_host_addrs(h.peers, own, 2), 0);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.1.0.1"), PB_IDENTITY_HOST);
	cr_expect_eq(lookup("192.168.0.7"), PB_IDENTITY_HOST);
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_REMOTE_NODE);
	cr_expect_eq(lookup("fd01::2"), PB_IDENTITY_REMOTE_NODE);
	cr_assert_eq(pb_peers_host_addrs(h.peers, own, 1), 0);
	cr_expect_eq(lookup("10.1.0.1"), PB_IDENTITY_HOST, "the Node object still says so");
	put_node("node-b", "10.1.0.3");
	settle();
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_WORLD);
	cr_expect_eq(lookup("10.1.0.3"), PB_IDENTITY_REMOTE_NODE);
	delete_object(PB_KUBE_NODE, "", "node-b");
	settle();
	cr_expect_eq(lookup("10.1.0.3"), PB_IDENTITY_WORLD);
}

static struct pb_node_address on(const char *addr, const char *ifname, uint32_t ifindex,
				 uint32_t flags)
{
	struct pb_kube_addr from = address(addr);
	struct pb_node_address a = {.size = sizeof(a),
				    .flags = flags,
				    .addr = from.addr,
				    .family = (uint8_t)from.family,
				    .bits = 24,
				    .ifindex = ifindex};

	snprintf(a.ifname, sizeof(a.ifname), "%s", ifname);
	return a;
}

Test(peers, node_addresses_are_told_once_each_and_only_changes_later)
{
	struct pb_node_address addrs[] = {
		on("127.0.0.1", "lo", 1, PB_NODE_ADDR_LOOPBACK),
		on("10.1.0.1", "lo", 1, PB_NODE_ADDR_LOOPBACK),
		on("10.1.0.1", "veth3", 3, 0),
		on("10.1.0.1", "eth0", 9, PB_NODE_ADDR_DEVICE),
		on("10.7.0.1", "veth4", 4, PB_NODE_ADDR_POD),
		on("fd01::1", "eth0", 9, PB_NODE_ADDR_DEVICE),
	};

	/* given: an address on three interfaces, in the order of the kernel's list */
	harness_start();
	cr_assert_eq(pb_peers_node_addresses(h.peers, addrs, 6), 0);
	cr_expect_str_eq(take_log(), "+10.1.0.1=eth0/1 +10.7.0.1=veth4/40 +127.0.0.1=lo/2 "
				     "+fd01::1=eth0/1 node-addresses! ");
	cr_assert_eq(pb_peers_node_addresses(h.peers, addrs, 6), 0);
	cr_expect_str_eq(take_log(), "", "nothing changed");
	/* when: the Node object comes, with addresses that no interface has too */
	put_node("node-b", "10.7.0.1");
	put_node("node-a", "10.1.0.1,192.0.2.1");
	settle();
	cr_expect_str_eq(take_log(), "+10.1.0.1=eth0/11 ");
	put_node_with("node-a", "ExternalIP", "10.1.0.1");
	settle();
	cr_expect_str_eq(take_log(), "+10.1.0.1=eth0/21 ");
	/* when: the device goes, and an address elsewhere */
	cr_assert_eq(pb_peers_node_addresses(h.peers, addrs, 3), 0);
	cr_expect_str_eq(take_log(), "+10.1.0.1=veth3/20 -10.7.0.1 -fd01::1 ");
	delete_object(PB_KUBE_NODE, "", "node-a");
	settle();
	cr_expect_str_eq(take_log(), "+10.1.0.1=veth3/0 ");
	cr_assert_eq(pb_peers_node_addresses(h.peers, NULL, 0), 0);
	cr_expect_str_eq(take_log(), "-10.1.0.1 -127.0.0.1 ");
}

Test(peers, I23_other_nodes_as_host)
{
	struct pb_err err = {0};

	given_a_cluster();
	all_listed();
	settle();
	h.config.identity.remote_node = 0;
	cr_assert_eq(pb_peers_reconfigure(h.peers, &h.config, &err), 0);
	settle();
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_HOST);
	cr_expect_eq(lookup_value("10.1.0.2").source, PB_IP_REMOTE_NODE, "it is another node");
	h.config.identity.remote_node = 1;
	cr_assert_eq(pb_peers_reconfigure(h.peers, &h.config, &err), 0);
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_REMOTE_NODE);
}

/* ---- configuration ---- */

Test(peers, another_label_filter_is_applied_to_all_pods)
{
	char *entries[] = {(char *)"!app"};
	struct pb_err err = {0};

	given_a_cluster();
	put_pod(&web);
	put_pod(&db);
	all_listed();
	settle();
	take_log();
	h.config.identity.labels = entries;
	h.config.identity.n_labels = 1;
	cr_assert_eq(pb_peers_reconfigure(h.peers, &h.config, &err), 0);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 258);
	cr_expect_eq(lookup("10.0.0.3"), 258);
	cr_expect(is_published(258));
	cr_expect_not(is_published(256));
	cr_expect_not(is_published(257));
	h.config.identity.n_labels = 0;
}

/* ---- ranges ---- */

Test(peers, I31_ranges_are_held_by_owners)
{
	const struct pb_cidr ten = prefix("10.0.0.0/8"), bad = prefix("10.0.0.1/8");
	const int plugin = 0, successor = 0;
	uint32_t a = 0, b = 0;

	given_a_cluster();
	put_pod(&web);
	all_listed();
	settle();
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &plugin, &ten, &a), 0);
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &successor, &ten, &b), 0);
	cr_expect_eq(a, b);
	cr_expect_geq(a, (uint32_t)PB_IDENTITY_CIDR);
	cr_expect_eq(lookup("10.9.9.9"), a);
	cr_expect_eq(lookup("10.0.0.1"), 256, "a pod inside the range is a pod");
	cr_expect_eq(pb_peers_cidr_hold(h.peers, &plugin, &bad, &b), -EINVAL);
	pb_peers_cidr_release_all(h.peers, &plugin);
	settle();
	cr_expect_eq(lookup("10.9.9.9"), a);
	cr_expect_eq(pb_peers_cidr_release(h.peers, &plugin, &ten), -ENOENT);
	cr_assert_eq(pb_peers_cidr_release(h.peers, &successor, &ten), 0);
	settle();
	cr_expect_eq(lookup("10.9.9.9"), PB_IDENTITY_WORLD);
}

Test(peers, I31_a_reload_withdraws_nothing)
{
	const struct pb_cidr ten = prefix("10.0.0.0/8");
	const int old = 0, new = 0;
	uint32_t a = 0, b = 0;

	cr_assert_eq(pb_peers_cidr_hold(h.peers, &old, &ten, &a), 0);
	take_log();
	pb_peers_cidr_release_all(h.peers, &old);
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &new, &ten, &b), 0);
	settle();
	cr_expect_eq(a, b);
	cr_expect_str_eq(take_log(), "");
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &new, &ten, &b), 0);
	cr_assert_eq(pb_peers_cidr_release(h.peers, &new, &ten), 0);
	settle();
	cr_expect_eq(lookup("10.9.9.9"), a, "held twice, released once");
}

Test(peers, a_range_that_has_no_room)
{
	const struct pb_cidr ten = prefix("10.0.0.0/8");
	uint32_t number = 0;

	harness_stop();
	map_limit(131072, 2);
	harness_start();
	put_node("node-b", "10.1.0.2");
	settle();
	cr_expect_eq(pb_peers_cidr_hold(h.peers, &number, &ten, &number), -ENOSPC);
	cr_expect_eq(map_entries(), 1, "nothing is half done");
	delete_object(PB_KUBE_NODE, "", "node-b");
	settle();
	cr_expect_eq(pb_peers_cidr_hold(h.peers, &number, &ten, &number), 0);
}

/* ---- no numbers ---- */

Test(peers, I14_I15_numbers_run_out_and_come_back)
{
	cJSON *status;

	harness_stop();
	map_limit(1, 524288);
	harness_start();
	given_a_cluster();
	put_pod(&web);
	put_pod(&db);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 256);
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_INIT, "fails closed");
	status = pb_peers_status_json(h.peers);
	cr_expect_eq(pb_json_num(status, "pods_without_identity", -1), 1);
	cJSON_Delete(status);
	map_limit(2, 524288);
	put_pod(&db);
	settle();
	/* The object is the same: the store tells nobody. A change does. */
	put_pod(&(struct pod){.ns = "shop",
			      .name = "db-1",
			      .labels = "app=db,x=y",
			      .ips = "10.0.0.3",
			      .node = "node-a"});
	settle();
	cr_expect_neq(lookup("10.0.0.3"), PB_IDENTITY_INIT);
	status = pb_peers_status_json(h.peers);
	cr_expect_eq(pb_json_num(status, "pods_without_identity", -1), 0);
	cJSON_Delete(status);
}

Test(peers, I14_labels_that_change_while_no_number_is_free)
{
	const struct pod other = {.ns = "shop",
				  .name = "db-1",
				  .labels = "app=other",
				  .ips = "10.0.0.3",
				  .node = "node-a"};

	harness_stop();
	map_limit(1, 524288);
	harness_start();
	given_a_cluster();
	put_pod(&db);
	all_listed();
	settle();
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), 256);
	take_log();
	put_pod(&other);
	settle();
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_INIT, "fails closed");
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), PB_IDENTITY_INIT);
	cr_expect_str_eq(take_log(), "shop/db-1:5 -256 ");

	/* The same when they changed while no agent ran: its endpoint still has the old number. */
	harness_kill();
	harness_start();
	given_a_cluster();
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), PB_IDENTITY_UNKNOWN);
	put_pod(&other);
	all_listed();
	settle();
	cr_expect_eq(pb_peers_pod(h.peers, "shop", "db-1"), PB_IDENTITY_INIT);
	cr_expect_not_null(strstr(take_log(), "shop/db-1:5 "));
}

/* ---- a restart ---- */

static void restart_case(void (*end)(void))
{
	uint32_t range = 0;
	const struct pb_cidr net = prefix("192.168.0.0/16");

	given_a_cluster();
	put_pod(&db);
	put_pod(&web);
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &net, &net, &range), 0);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.3"), 256);
	cr_expect_eq(lookup("10.0.0.1"), 257);
	end();
	cr_expect_eq(lookup("10.0.0.1"), 257, "the maps stay");
	cr_expect_eq(lookup("192.168.1.1"), range);
	harness_start();
	map_writes();
	/* The other way round, and db is gone. */
	put_pod(&web);
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 257, "not known yet, and nothing is worse for it");
	given_a_cluster();
	settle();
	cr_expect_eq(map_writes(), 0, "equal entries aren't written");
	cr_expect_eq(lookup("10.0.0.3"), 256, "until all are listed");
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 257);
	cr_expect_eq(lookup("10.0.0.3"), PB_IDENTITY_WORLD);
	cr_expect_eq(lookup("192.168.1.1"), range, "its plugin may still come");
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &net, &net, &range), 0);
	cr_expect_eq(lookup("192.168.1.1"), range, "the same number");
	cr_expect_eq(map_identities(), 3, "db's number rests");
}

Test(peers, I10_I13_I28_I29_I32_restart)
{
	restart_case(harness_stop);
}

Test(peers, I10_I13_I28_I29_kill)
{
	restart_case(harness_kill);
}

Test(peers, I32_nothing_is_taken_out_at_the_end)
{
	const struct pb_cidr net = prefix("192.168.0.0/16");
	const struct pb_kube_addr ip = address("10.0.0.3");
	uint32_t range = 0;

	given_a_cluster();
	put_pod(&db);
	all_listed();
	settle();
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", &ip, 1), 0);
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &net, &net, &range), 0);
	take_log();
	pb_peers_quiesce(h.peers);
	pb_peers_cidr_release_all(h.peers, &net);
	cr_assert_eq(pb_peers_local_pod(h.peers, "shop", "db-1", NULL, 0), 0);
	settle();
	cr_expect_eq(lookup("192.168.1.1"), range);
	cr_expect_eq(lookup("10.0.0.3"), 256);
	cr_expect_str_eq(take_log(), "");
}

/* ---- topics ---- */

Test(peers, I16_an_endpoint_keeps_its_identity_published)
{
	struct pb_endpoint_record record = {.size = sizeof(record), .id = 7, .identity = 256};

	given_a_cluster();
	put_pod(&db);
	all_listed();
	settle();
	take_log();
	cr_assert_eq(pb_peers_publish_endpoint(h.peers, "shop", "db-1", &record), 0);
	delete_object(PB_KUBE_POD, "shop", "db-1");
	settle();
	cr_expect_str_eq(take_log(), "+shop/db-1 ");
	cr_assert_eq(pb_peers_publish_endpoint(h.peers, "shop", "db-1", NULL), 0);
	cr_expect_str_eq(take_log(), "-shop/db-1 -256 ");
	cr_expect_eq(pb_peers_publish_endpoint(h.peers, "shop", "db-1", NULL), -ENOENT);
	record.identity = 999;
	cr_expect_eq(pb_peers_publish_endpoint(h.peers, "shop", "db-1", &record), -ENOENT);
}

Test(peers, synced_when_all_is_in)
{
	given_a_cluster();
	put_pod(&web);
	pb_sink_list_end(h.sink, PB_KUBE_POD);
	pb_sink_list_end(h.sink, PB_KUBE_NAMESPACE);
	pb_peers_endpoints_synced(h.peers);
	settle();
	cr_expect_str_eq(take_log(), "+256 ");
	pb_sink_list_end(h.sink, PB_KUBE_NODE);
	settle();
	cr_expect_str_eq(take_log(), "identities! endpoints! ");
}

Test(peers, without_a_source_everything_is_known)
{
	pb_sink_absent(h.sink, PB_KUBE_POD);
	pb_sink_absent(h.sink, PB_KUBE_NAMESPACE);
	pb_sink_absent(h.sink, PB_KUBE_NODE);
	settle();
	cr_expect_str_eq(take_log(), "identities! ");
}

/* ---- lists ---- */

static unsigned all_pages(cJSON *(*page)(struct pb_peers *, const char *, const char *,
					 struct pb_err *),
			  const char *filter, unsigned *ret_pages)
{
	PB_FREE char *after = strdup("");
	unsigned rows = 0;

	for (*ret_pages = 0; after; (*ret_pages)++) {
		struct pb_err err = {0};
		PB_JSON_FREE cJSON *table = page(h.peers, filter, after, &err);
		const char *next;

		cr_assert_not_null(table, "%s", err.text);
		rows += (unsigned)cJSON_GetArraySize(cJSON_GetObjectItem(table, "items"));
		next = pb_json_str(table, "next", NULL);
		free(after);
		after = next ? strdup(next) : NULL;
	}
	return rows;
}

Test(peers, lists_come_in_pages)
{
	struct pb_err err = {0};
	unsigned pages = 0;
	char name[16], ip[32], labels[32];
	struct pod pod = {
		.ns = "shop", .name = name, .labels = labels, .ips = ip, .node = "node-b"};

	given_a_cluster();
	for (unsigned i = 0; i < 600; i++) {
		snprintf(name, sizeof(name), "web-%u", i);
		snprintf(labels, sizeof(labels), "app=web,n=x%u", i);
		snprintf(ip, sizeof(ip), "10.0.%u.%u", i / 200, i % 200 + 1);
		put_pod(&pod);
	}
	all_listed();
	settle();
	cr_expect_eq(all_pages(pb_peers_identities_json, "", &pages), 600);
	cr_expect_eq(pages, 5);
	cr_expect_eq(all_pages(pb_peers_identities_json, "n=x599", &pages), 1);
	cr_expect_eq(all_pages(pb_peers_identities_json, "300", &pages), 1);
	cr_expect_eq(all_pages(pb_peers_ips_json, "", &pages), 603);
	cr_expect_eq(pages, 5);
	cr_expect_eq(all_pages(pb_peers_ips_json, "10.0.1.0/24", &pages), 200);
	cr_expect_eq(all_pages(pb_peers_ips_json, "10.0.0.7", &pages), 1);
	cr_expect_eq(all_pages(pb_peers_ips_json, "6", &pages), 2, "addresses of node-b");
	cr_expect_eq(all_pages(pb_peers_ips_json, "fd01::/16", &pages), 1);
	cr_expect_null(pb_peers_ips_json(h.peers, "10.0.0", "", &err));
	cr_expect_eq(err.code, -EINVAL);
	cr_expect_null(pb_peers_ips_json(h.peers, "", "nowhere", &err));
	cr_expect_null(pb_peers_identities_json(h.peers, "", "x", &err));
}

/* ---- any sequence of events ---- */

#define RANDOM_PODS 40
#define RANDOM_IPS 12
#define RANDOM_NODES 4
#define RANDOM_NS 3

static struct {
	struct pod pod;
	char name[16], labels[32], ip[32], node[16], ns[16];
	bool exists;
	unsigned claimed; /* when it took its address, or the address it has now, first */
} pods[RANDOM_PODS];
static char ns_labels[RANDOM_NS][16];
static bool node_exists[RANDOM_NODES];
static unsigned now;

static void random_pod(unsigned i)
{
	const char *phases[] = {"Pending", "Running", "Running", "Succeeded"};
	bool had = pods[i].exists && strcmp(pods[i].pod.phase, "Succeeded") != 0;
	char ip[32];

	if (pods[i].exists && rand() % 4 == 0) {
		delete_object(PB_KUBE_POD, pods[i].ns, pods[i].name);
		pods[i].exists = false;
		return;
	}
	snprintf(ip, sizeof(ip), rand() % 2 ? "10.0.0.%u" : "fd00::%u",
		 1 + (unsigned)rand() % RANDOM_IPS);
	if (pods[i].exists && rand() % 2)
		snprintf(ip, sizeof(ip), "%s", pods[i].ip);
	if (!had || strcmp(ip, pods[i].ip) != 0)
		pods[i].claimed = ++now;
	snprintf(pods[i].ip, sizeof(pods[i].ip), "%s", ip);
	snprintf(pods[i].name, sizeof(pods[i].name), "pod-%u", i);
	snprintf(pods[i].ns, sizeof(pods[i].ns), "ns-%u", i % RANDOM_NS);
	snprintf(pods[i].labels, sizeof(pods[i].labels), "app=a%u", (unsigned)rand() % 5);
	snprintf(pods[i].node, sizeof(pods[i].node), "node-%u", (unsigned)rand() % RANDOM_NODES);
	pods[i].pod = (struct pod){.ns = pods[i].ns,
				   .name = pods[i].name,
				   .labels = pods[i].labels,
				   .ips = pods[i].ip,
				   .node = pods[i].node,
				   .phase = phases[rand() % 4]};
	pods[i].exists = true;
	put_pod(&pods[i].pod);
}

static void random_event(void)
{
	unsigned what = (unsigned)rand() % 10, i = (unsigned)rand();
	char name[32], labels[32], addr[32];

	if (what == 0) {
		snprintf(name, sizeof(name), "ns-%u", i % RANDOM_NS);
		snprintf(ns_labels[i % RANDOM_NS], 16, "t%u", (unsigned)rand() % 3);
		snprintf(labels, sizeof(labels), "team=%s", ns_labels[i % RANDOM_NS]);
		put_namespace(name, labels);
	} else if (what == 1) {
		snprintf(name, sizeof(name), "node-%u", i % RANDOM_NODES);
		snprintf(addr, sizeof(addr), "10.1.0.%u", i % RANDOM_NODES);
		if (node_exists[i % RANDOM_NODES])
			delete_object(PB_KUBE_NODE, "", name);
		else
			put_node(name, addr);
		node_exists[i % RANDOM_NODES] ^= true;
	} else {
		random_pod(i % RANDOM_PODS);
	}
}

/* Whose the address is by the objects alone; -1: nobody's. */
static int owner_of(const char *ip)
{
	int best = -1;

	for (int i = 0; i < RANDOM_PODS; i++) {
		bool runs, best_runs;

		if (!pods[i].exists || strcmp(pods[i].ip, ip) != 0 ||
		    strcmp(pods[i].pod.phase, "Succeeded") == 0)
			continue;
		runs = strcmp(pods[i].pod.phase, "Running") == 0;
		best_runs = best >= 0 && strcmp(pods[best].pod.phase, "Running") == 0;
		if (best < 0 || runs > best_runs ||
		    (runs == best_runs && pods[i].claimed > pods[best].claimed))
			best = i;
	}
	return best;
}

static bool same_identity(int a, int b)
{
	return strcmp(pods[a].labels, pods[b].labels) == 0 && strcmp(pods[a].ns, pods[b].ns) == 0;
}

/* Equal numbers exactly for equal label sets, world for nobody's. */
static void expect_maps_match(unsigned round)
{
	int owners[2 * RANDOM_IPS];
	uint32_t numbers[2 * RANDOM_IPS];
	char ip[32];

	for (unsigned i = 0; i < 2 * RANDOM_IPS; i++) {
		snprintf(ip, sizeof(ip), i % 2 ? "10.0.0.%u" : "fd00::%u", 1 + i / 2);
		owners[i] = owner_of(ip);
		numbers[i] = lookup(ip);
		cr_assert_eq(numbers[i] == PB_IDENTITY_WORLD, owners[i] < 0, "round %u: %s is %u",
			     round, ip, numbers[i]);
		cr_assert(owners[i] < 0 || is_published(numbers[i]), "round %u: %s", round, ip);
	}
	for (unsigned i = 0; i < 2 * RANDOM_IPS; i++)
		for (unsigned k = 0; k < i; k++)
			if (owners[i] >= 0 && owners[k] >= 0)
				cr_assert_eq(numbers[i] == numbers[k],
					     same_identity(owners[i], owners[k]),
					     "round %u: %u and %u", round, numbers[i], numbers[k]);
	for (unsigned i = 0; i < RANDOM_NODES; i++) {
		snprintf(ip, sizeof(ip), "10.1.0.%u", i);
		cr_assert_eq(lookup(ip),
			     node_exists[i] ? PB_IDENTITY_REMOTE_NODE : PB_IDENTITY_WORLD);
	}
}

Test(peers, I37_any_sequence_of_events)
{
	unsigned seed = (unsigned)time(NULL);
	char ns[16];

	srand(seed);
	for (unsigned i = 0; i < RANDOM_NS; i++) {
		snprintf(ns, sizeof(ns), "ns-%u", i);
		put_namespace(ns, "");
	}
	all_listed();
	for (unsigned round = 0; round < 400; round++) {
		for (unsigned n = (unsigned)rand() % 8; n > 0; n--) {
			random_event();
			/* Coalesced events would tell a pod's claims in another order. */
			for (int turn = 0; turn < 20; turn++)
				uv_run(&h.loop, UV_RUN_NOWAIT);
		}
		settle();
		h.log[0] = '\0';
		cr_log_info("seed %u", seed);
		expect_maps_match(round);
	}
}
