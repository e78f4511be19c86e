/* SPDX-License-Identifier: Apache-2.0 */
/* patchbay.yaml: what a file means, and the exact words about one that is wrong. */
#include <criterion/criterion.h>

#include <sys/stat.h>

#include <config/config.h>

#define NAME "/etc/patchbay/patchbay.yaml"

static struct pb_config *parse(const char *text)
{
	struct pb_config *config = NULL;
	struct pb_err err = {0};

	cr_assert_eq(pb_config_parse(NAME, text, strlen(text), &config, &err), 0, "%s", err.text);
	return config;
}

struct refusal {
	const char *given;
	const char *text; /* after "NAME:" */
};

static void refuse_all(const struct refusal *cases, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pb_config *config = NULL;
		struct pb_err err = {0};
		PB_FREE char *want = pb_sprintf(NAME ":%s", cases[i].text);
		int rc = pb_config_parse(NAME, cases[i].given, strlen(cases[i].given), &config,
					 &err);

		cr_expect_eq(rc, -EINVAL, "%s: accepted", cases[i].given);
		cr_expect_null(config);
		cr_expect_str_eq(err.text, want, "given:\n%s\ntold:   %s\nwanted: %s",
				 cases[i].given, err.text, want);
		pb_config_free(config);
	}
}

Test(config, an_empty_file_gives_the_documented_defaults)
{
	struct pb_config *c = parse("");

	cr_assert_str_eq(c->file, NAME);
	cr_assert_not_null(c->node.name);
	cr_assert_eq(c->kubernetes.source, PB_SOURCE_NONE);
	cr_assert_null(c->kubernetes.manifests);
	cr_assert_eq(c->datapath.n_devices, 0);
	cr_assert_null(c->datapath.cgroup);
	cr_assert_str_eq(c->datapath.bpffs, "/sys/fs/bpf/patchbay");
	cr_assert_eq(c->datapath.attach, PB_ATTACH_AUTO);
	cr_assert_str_eq(c->agent.run_dir, "/run/patchbay");
	cr_assert_str_eq(c->agent.plugin_dir, PB_PLUGIN_DIR);
	cr_assert_eq(c->agent.max_crashes, 3);
	cr_assert_eq(c->agent.callback_deadline_ms, 5000);
	cr_assert_str_eq(c->control.socket, "/run/patchbay/patchbay.sock");
	cr_assert_null(c->control.group);
	cr_assert_str_eq(c->http.listen, "127.0.0.1:9876");
	cr_assert_eq(c->log.format, PB_LOG_LOGFMT);
	cr_assert_eq(c->log.level, PB_LOG_INFO);
	cr_assert_eq(c->n_plugins, 0);
	pb_config_free(c);
}

Test(config, the_example_of_the_guide_is_read_as_written)
{
	struct pb_config *c =
		parse("node: {name: node-a}\n"
		      "kubernetes: {source: manifests, manifests: ./manifests}\n"
		      "datapath: {devices: [eth0, 'veth+'], cgroup: /sys/fs/cgroup, bpffs: /b, "
		      "attach: clsact}\n"
		      "control: {socket: /run/patchbay/patchbay.sock, group: adm}\n"
		      "agent: {run_dir: /r, plugin_dir: plugins, max_crashes: 0x10, "
		      "callback_deadline_ms: 250}\n"
		      "log: {format: json, level: debug}\n"
		      "plugins: {endpointslice: {}, kpr: {}}\n");

	cr_assert_str_eq(c->node.name, "node-a");
	cr_assert_eq(c->kubernetes.source, PB_SOURCE_MANIFESTS);
	cr_assert_str_eq(c->kubernetes.manifests, "/etc/patchbay/manifests");
	cr_assert_eq(c->datapath.n_devices, 2);
	cr_assert_str_eq(c->datapath.devices[1], "veth+");
	cr_assert_str_eq(c->datapath.cgroup, "/sys/fs/cgroup");
	cr_assert_str_eq(c->datapath.bpffs, "/b");
	cr_assert_eq(c->datapath.attach, PB_ATTACH_CLSACT);
	cr_assert_str_eq(c->control.group, "adm");
	cr_assert_str_eq(c->agent.run_dir, "/r");
	cr_assert_str_eq(c->agent.plugin_dir, "/etc/patchbay/plugins");
	cr_assert_eq(c->agent.max_crashes, 16);
	cr_assert_eq(c->agent.callback_deadline_ms, 250);
	cr_assert_eq(c->log.format, PB_LOG_JSON);
	cr_assert_eq(c->log.level, PB_LOG_DEBUG);
	cr_assert_eq(c->n_plugins, 2);
	cr_assert_str_eq(c->plugins[0].name, "endpointslice");
	cr_assert_str_eq(c->plugins[1].json, "{}");
	pb_config_free(c);
}

Test(config, the_socket_follows_the_run_dir_and_paths_the_file)
{
	static const struct {
		const char *given, *socket;
	} cases[] = {
		{"agent: {run_dir: /r/a}", "/r/a/patchbay.sock"},
		{"agent: {run_dir: run}", "/etc/patchbay/run/patchbay.sock"},
		{"control: {socket: ./x.sock}", "/etc/patchbay/x.sock"},
		{"control: {socket: .//x.sock}", "/etc/patchbay/x.sock"},
		{"control: {socket: ../x.sock}", "/etc/patchbay/../x.sock"},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_config *c = parse(cases[i].given);

		cr_expect_str_eq(c->control.socket, cases[i].socket);
		pb_config_free(c);
	}
}

Test(config, a_plugins_section_becomes_json_without_the_reserved_keys)
{
	static const struct {
		const char *given, *json, *path;
		bool required;
	} cases[] = {
		{"plugins:\n  kpr:\n", "{}", NULL, false},
		{"plugins: {kpr: {path: x.so, required: always}}", "{}", "/etc/patchbay/x.so",
		 true},
		{"plugins: {kpr: {required: never}}", "{}", NULL, false},
		{"plugins: {kpr: {a: {path: 1, required: no}}}",
		 "{\"a\":{\"path\":1,\"required\":\"no\"}}", NULL, false},
		{"plugins: {kpr: {a: 1, b: -7, c: +08, d: 0o17, e: 0xff}}",
		 "{\"a\":1,\"b\":-7,\"c\":8,\"d\":15,\"e\":255}", NULL, false},
		{"plugins: {kpr: {a: 18446744073709551615, b: -9223372036854775808}}",
		 "{\"a\":18446744073709551615,\"b\":-9223372036854775808}", NULL, false},
		{"plugins: {kpr: {a: 1.5, b: .5, c: 1e3, d: 0.1, e: -2.}}",
		 "{\"a\":1.5,\"b\":0.5,\"c\":1000,\"d\":0.1,\"e\":-2}", NULL, false},
		{"plugins: {kpr: {a: true, b: FALSE, c: ~, d: , e: yes, f: 'true', g: \"5\"}}",
		 "{\"a\":true,\"b\":false,\"c\":null,\"d\":null,\"e\":\"yes\",\"f\":\"true\","
		 "\"g\":\"5\"}",
		 NULL, false},
		{"plugins: {kpr: {a: [1, [x], {}], 80: http, s: \"q\\\"\\\\\\n\\x07\"}}",
		 "{\"a\":[1,[\"x\"],{}],\"80\":\"http\",\"s\":\"q\\\"\\\\\\u000a\\u0007\"}", NULL,
		 false},
		{"plugins: {kpr: {a: 1_000, b: 0b1, c: 1.2.3, d: '.inf', e: Zürich}}",
		 "{\"a\":\"1_000\",\"b\":\"0b1\",\"c\":\"1.2.3\",\"d\":\".inf\",\"e\":\"Zürich\"}",
		 NULL, false},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_config *c = parse(cases[i].given);

		cr_expect_str_eq(c->plugins[0].json, cases[i].json, "%s\ngave %s", cases[i].given,
				 c->plugins[0].json);
		cr_expect_eq(c->plugins[0].required, cases[i].required);
		if (cases[i].path)
			cr_expect_str_eq(c->plugins[0].path, cases[i].path);
		else
			cr_expect_null(c->plugins[0].path);
		pb_config_free(c);
	}
}

Test(config, an_unknown_key_is_refused_with_a_suggestion)
{
	static const struct refusal cases[] = {
		{"\ndatapath:\n  device: [eth0]\n",
		 "3: datapath.device: unknown key; did you mean \"devices\"?"},
		{"kubernets: {}", "1: kubernets: unknown key; did you mean \"kubernetes\"?"},
		{"log:\n  colour: x\n", "2: log.colour: unknown key; known are format, level"},
		{"frobnicate: 1",
		 "1: frobnicate: unknown key; known are node, kubernetes, "
		 "datapath, control, http, agent, cluster, identity, log, plugins"},
		{"node: {name: a, names: b}", "1: node.names: unknown key; did you mean \"name\"?"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, keys_of_identities)
{
	struct pb_config *c = parse("");

	cr_assert_str_eq(c->cluster.name, "default");
	cr_assert_eq(c->identity.n_labels, 0);
	cr_assert_eq(c->identity.remote_node, 1);
	pb_config_free(c);
	c = parse("cluster: {name: east}\n"
		  "identity: {labels: [app, 'k8s:tier', '!any:io.x/', '!io.kubernetes'], "
		  "remote_node: false}\n");
	cr_assert_str_eq(c->cluster.name, "east");
	cr_assert_eq(c->identity.n_labels, 4);
	cr_assert_str_eq(c->identity.labels[2], "!any:io.x/");
	cr_assert_eq(c->identity.remote_node, 0);
	pb_config_free(c);
}

Test(config, keys_of_conntrack)
{
	struct pb_config *c = parse("");

	cr_expect_eq(c->datapath.ct_tcp_established, 21600);
	cr_expect_eq(c->datapath.ct_tcp_opening, 60);
	cr_expect_eq(c->datapath.ct_tcp_closing, 10);
	cr_expect_eq(c->datapath.ct_other, 60);
	cr_expect_eq(c->datapath.ct_gc_interval, 0);
	pb_config_free(c);
	c = parse("datapath:\n  devices: [eth0]\n  conntrack: {tcp_established: 100, "
		  "tcp_opening: 5, tcp_closing: 1, other: 604800, gc_interval: 43200}\n");
	cr_expect_eq(c->datapath.n_devices, 1);
	cr_expect_eq(c->datapath.ct_tcp_established, 100);
	cr_expect_eq(c->datapath.ct_tcp_opening, 5);
	cr_expect_eq(c->datapath.ct_tcp_closing, 1);
	cr_expect_eq(c->datapath.ct_other, 604800);
	cr_expect_eq(c->datapath.ct_gc_interval, 43200);
	pb_config_free(c);
	c = parse("datapath:\n  conntrack:\n    gc_interval: auto\n");
	cr_expect_eq(c->datapath.ct_gc_interval, 0);
	pb_config_free(c);
	c = parse("datapath:\n  conntrack:\n");
	cr_expect_eq(c->datapath.ct_other, 60);
	pb_config_free(c);
}

Test(config, keys_of_conntrack_are_checked)
{
	static const struct refusal cases[] = {
		{"datapath: {conntrack: {tcp_openin: 5}}",
		 "1: datapath.conntrack.tcp_openin: unknown key; did you mean \"tcp_opening\"?"},
		{"datapath: {conntrack: {x: 5}}",
		 "1: datapath.conntrack.x: unknown key; known are tcp_established, tcp_opening, "
		 "tcp_closing, other, gc_interval"},
		{"datapath: {conntrack.other: 5}",
		 "1: datapath.conntrack.other: unknown key; known are devices, cgroup, bpffs, "
		 "attach, conntrack"},
		{"datapath: {conntrack: 5}",
		 "1: datapath.conntrack: must be a mapping, not a number"},
		{"datapath: {conntrack: {other: 0}}",
		 "1: datapath.conntrack.other: 0 is out of range; give 1 to 604800"},
		{"datapath: {conntrack: {other: auto}}",
		 "1: datapath.conntrack.other: must be a whole number, not a string"},
		{"datapath: {conntrack: {gc_interval: 0}}",
		 "1: datapath.conntrack.gc_interval: 0 is out of range; give 1 to 43200 or auto"},
		{"datapath: {conntrack: {gc_interval: never}}",
		 "1: datapath.conntrack.gc_interval: must be a whole number or auto, not a string"},
		{"datapath: {conntrac: {}}",
		 "1: datapath.conntrac: unknown key; did you mean \"conntrack\"?"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, I6_an_entry_of_identity_labels_that_makes_no_sense_is_named)
{
	static const struct refusal cases[] = {
		{"identity: {labels: app}", "1: identity.labels: must be a list, not a string; "
					    "write it as [k8s:app, \"!k8s:commit\"]"},
		{"identity:\n  labels: [app, '!']\n",
		 "2: identity.labels: \"!\" names no label; give the beginning of a label's key"},
		{"identity: {labels: ['k8s:']}", "1: identity.labels: \"k8s:\" names no label; "
						 "give the beginning of a label's key"},
		{"identity: {labels: ['reserved:host']}",
		 "1: identity.labels: \"reserved:host\" has an unknown source; known are k8s and "
		 "any"},
		{"identity: {labels: ['io\\.kubernetes.*']}",
		 "1: identity.labels: \"io\\.kubernetes.*\" is no beginning of a label's key; "
		 "patterns are not understood"},
		{"identity: {labels: ['!k8s:io.kubernetes.pod.namespace']}",
		 "1: identity.labels: \"!k8s:io.kubernetes.pod.namespace\" can't be left out: "
		 "policies depend on it"},
		{"identity: {labels: [12]}",
		 "1: identity.labels: must be a string, not a number; put it in quotes"},
		{"identity: {remote_node: 1}",
		 "1: identity.remote_node: unknown value \"1\"; known are false, true"},
		{"cluster: {name: 'a b'}",
		 "1: cluster.name: \"a b\" is no cluster name; use up to 63 lower case letters, "
		 "digits, '-' and '.'"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, a_wrong_type_is_refused_with_line_key_and_remedy)
{
	static const struct refusal cases[] = {
		{"node: {name: 12}",
		 "1: node.name: must be a string, not a number; put it in quotes"},
		{"node: {name: true}",
		 "1: node.name: must be a string, not true or false; put it in quotes"},
		{"node: {name: 1.5}",
		 "1: node.name: must be a string, not a fraction; put it in quotes"},
		{"node:\n  name:\n", "2: node.name: must be a string, not empty"},
		{"node: {name: ''}", "1: node.name: is empty; give a value or remove the key"},
		{"node: {name: [a]}", "1: node.name: must be a string, not a list"},
		{"node: []", "1: node: must be a mapping, not a list"},
		{"- a", "1: the file must be a mapping, not a list; see patchbay.yaml(5)"},
		{"datapath: {devices: eth0}",
		 "1: datapath.devices: must be a list, not a string; write it as [eth0]"},
		{"datapath: {devices: [1]}",
		 "1: datapath.devices: must be a string, not a number; put it in quotes"},
		{"agent: {max_crashes: '3'}",
		 "1: agent.max_crashes: must be a whole number, not a string"},
		{"agent: {max_crashes: 1.5}",
		 "1: agent.max_crashes: must be a whole number, not a fraction"},
		{"log: {level: [debug]}",
		 "1: log.level: must be one of error, warn, info, debug, not a list"},
		{"plugins: [kpr]",
		 "1: plugins: must be a mapping, not a list; write it as {NAME: {}}"},
		{"plugins: {kpr: on}",
		 "1: plugins.kpr: must be a mapping, not a string; write {} for none"},
		{"plugins: {kpr: {path: 5}}",
		 "1: plugins.kpr.path: must be a string, not a number; put it in quotes"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, a_value_out_of_range_is_refused)
{
	static const struct refusal cases[] = {
		{"agent: {max_crashes: 0}",
		 "1: agent.max_crashes: 0 is out of range; give 1 to 1000"},
		{"agent: {max_crashes: -1}",
		 "1: agent.max_crashes: -1 is out of range; give 1 to 1000"},
		{"agent: {max_crashes: 4294967297}",
		 "1: agent.max_crashes: 4294967297 is out of range; give 1 to 1000"},
		{"agent: {callback_deadline_ms: 99}",
		 "1: agent.callback_deadline_ms: 99 is out of range; give 100 to 600000"},
		{"log: {level: loud}",
		 "1: log.level: unknown value \"loud\"; known are error, warn, info, debug"},
		{"log: {level: warning}", "1: log.level: unknown value \"warning\"; known are "
					  "error, warn, info, debug"},
		{"log: {level: inof}",
		 "1: log.level: unknown value \"inof\"; did you mean \"info\"?"},
		{"kubernetes: {source: API}", "1: kubernetes.source: unknown value \"API\"; known "
					      "are none, manifests, api"},
		{"node: {name: Node_A}", "1: node.name: \"Node_A\" is no node name; use lower case "
					 "letters, digits, '-' and '.'"},
		{"http: {listen: localhost:9876}",
		 "1: http.listen: \"localhost:9876\" is no address; write 127.0.0.1:PORT, "
		 "[::1]:PORT, unix:/PATH or off, names are not resolved"},
		{"http: {listen: '[::1]:0'}", "1: http.listen: \"[::1]:0\" has no port behind its "
					      "last ':'; give a number from 1 to 65535"},
		{"datapath: {devices: [a/b]}",
		 "1: datapath.devices: \"a/b\" is no device name; at most 15 characters without "
		 "'/', ':' and blanks"},
		{"datapath: {devices: [abcdefghijklmnop]}",
		 "1: datapath.devices: \"abcdefghijklmnop\" is no device name; at most 15 "
		 "characters without '/', ':' and blanks"},
		{"datapath: {devices: [e+h]}", "1: datapath.devices: \"e+h\" has a '+' inside; it "
					       "stands for \"anything\" at the end only"},
		{"plugins: {Kpr: {}}",
		 "1: plugins: \"Kpr\" is no plugin name; use at most 31 lower case letters, digits "
		 "and dashes"},
		{"plugins: {../../x: {}}",
		 "1: plugins: \"../../x\" is no plugin name; use at most 31 lower case letters, "
		 "digits and dashes"},
		{"plugins: {kpr: {required: alway}}",
		 "1: plugins.kpr.required: unknown value \"alway\"; did you mean \"always\"?"},
		{"plugins: {kpr: {a: {b: [1, 18446744073709551616]}}}",
		 "1: plugins.kpr.a.b[1]: 18446744073709551616 doesn't fit into 64 bits; put it in "
		 "quotes"},
		{"plugins: {kpr: {a: .nan}}",
		 "1: plugins.kpr.a: .nan is not a number that JSON knows; put it in quotes"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, a_duplicate_key_is_refused_with_both_lines)
{
	static const struct refusal cases[] = {
		{"node: {}\nlog: {}\nnode: {}\n",
		 "3: node: duplicate key, the first is in line 1; remove one"},
		{"node:\n  name: a\n  name: b\n",
		 "3: node.name: duplicate key, the first is in line 2; remove one"},
		{"plugins:\n  kpr: {a: {b: 1,\n    b: 2}}\n",
		 "3: plugins.kpr.a.b: duplicate key, the first is in line 2; remove one"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, keys_that_need_one_another_say_so)
{
	static const struct refusal cases[] = {
		{"log: {}\nkubernetes: {source: manifests}\n",
		 "2: kubernetes.manifests: is missing; source \"manifests\" needs a directory"},
		{"kubernetes:\n  manifests: m\n",
		 "2: kubernetes.manifests: needs \"source: manifests\""},
		{"kubernetes:\n  source: manifests\n  manifests: m\n  kubeconfig: k\n",
		 "4: kubernetes.kubeconfig: needs \"source: api\""},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, yaml_that_a_configuration_has_no_use_for_is_refused)
{
	static const struct refusal cases[] = {
		{"node: &a {name: x}\n",
		 "1: node: anchors and aliases are not supported; write the value out"},
		{"node: {}\nlog: *a\n",
		 "2: log: anchors and aliases are not supported; write the value out"},
		{"node: !x {}\n", "1: node: tags are not supported; remove \"!x\""},
		{"node: {}\n---\nlog: {}\n", "2: a second document starts here; only one is read"},
		{"[a]: b\n", "1: a key must be a word, not a list or a mapping"},
		{"node: {name: \"a\\0b\"}", "1: node.name: contains a NUL character; remove it"},
		{"plugins: {kpr: {a: "
		 "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}}",
		 "1: plugins.kpr.a: nested deeper than 32 levels"},
		{"node:\n\tname: x\n",
		 "2: not valid YAML: while scanning for the next token: found character that "
		 "cannot start any token; indent with blanks, not tabs, and quote what starts with "
		 "@, ` or %"},
		{"a: b: c\n", "1: not valid YAML: mapping values are not allowed in this context"},
		{"node: {name: x\n", "2: not valid YAML: while parsing a flow mapping: did not "
				     "find expected ',' or '}'"},
		{"a: \"\x1b[31m\"\n", "1: not valid YAML: control characters are not allowed"},
		{"\"\\e[31m\": 1\n", "1: ?[31m: unknown key; known are node, kubernetes, datapath, "
				     "control, http, agent, cluster, identity, log, plugins"},
	};

	refuse_all(cases, PB_ARRAY_LEN(cases));
}

Test(config, a_socket_path_that_no_address_can_hold_is_refused)
{
	char text[300];
	char dir[120];
	struct pb_config *config = NULL;
	struct pb_err err = {0};

	memset(dir, 'd', sizeof(dir) - 1);
	dir[sizeof(dir) - 1] = '\0';
	snprintf(text, sizeof(text), "control: {socket: /%s}", dir);
	cr_assert_eq(pb_config_parse(NAME, text, strlen(text), &config, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "is too long for a socket's address"));
	snprintf(text, sizeof(text), "agent: {run_dir: /%s}", dir);
	cr_assert_eq(pb_config_parse(NAME, text, strlen(text), &config, &err), -EINVAL);
	cr_assert_not_null(strstr(err.text, "choose a shorter agent.run_dir"));
}

Test(config, a_change_of_a_fixed_key_is_found_by_name)
{
	static const struct {
		const char *after, *fixed;
	} cases[] = {
		{"node: {name: a}", NULL},
		{"node: {name: a}\nlog: {level: debug}\ndatapath: {devices: [eth9]}\n"
		 "kubernetes: {source: api}\nplugins: {kpr: {}}",
		 NULL},
		{"node: {name: b}", "node.name"},
		{"node: {name: a}\ndatapath: {bpffs: /x}", "datapath.bpffs"},
		{"node: {name: a}\ndatapath: {cgroup: /x}", "datapath.cgroup"},
		{"node: {name: a}\ndatapath: {attach: tcx}", "datapath.attach"},
		{"node: {name: a}\ncontrol: {socket: /x}", "control.socket"},
		{"node: {name: a}\nagent: {max_crashes: 4}", "agent.max_crashes"},
	};
	struct pb_config *before = parse("node: {name: a}");

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_config *after = parse(cases[i].after);
		const char *fixed = pb_config_fixed_change(before, after);

		cr_expect_str_eq(fixed ? fixed : "none", cases[i].fixed ? cases[i].fixed : "none");
		pb_config_free(after);
	}
	pb_config_free(before);
}

Test(config, a_file_that_is_not_there_is_named)
{
	struct pb_config *config = NULL;
	struct pb_err err = {0};

	cr_assert_eq(pb_config_load("/nonexistent/x.yaml", &config, &err), -ENOENT);
	cr_assert_str_eq(err.text, "/nonexistent/x.yaml: No such file or directory");
	cr_assert_null(config);
}
