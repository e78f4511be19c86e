/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One small file an announced endpoint, below the run directory.
 *
 * Owns those files. Written and removed on the pool, one after the other, so that the last word
 * about an endpoint is the one that stays. Neither the loop nor a packet ever waits for them.
 */
#include <node/internal.h>

#include <dirent.h>
#include <sys/stat.h>

#include <base/log.h>

#define RECORD_MAX 8192
/* More than pods fit on a node; a directory that somebody filled costs no more. */
#define RECORDS_MAX 4096

static void pump(struct pb_node *node);

static char *record_path(const struct pb_node *node, uint32_t id)
{
	return pb_sprintf("%s/%u", node->record_dir, id);
}

static void op_free(struct node_record_op *op)
{
	free(op->text);
	free(op);
}

/* ---- on the pool ---- */

static void on_pool(uv_work_t *work)
{
	struct pb_node *node = work->data;
	struct node_record_op *op = node->records;
	PB_FREE char *path = record_path(node, op->id);

	if (!path)
		op->result = pb_err_set(&op->err, -ENOMEM, "out of memory");
	else if (op->text)
		op->result = pb_file_write(path, op->text, strlen(op->text), 0600, &op->err);
	else if (unlink(path) < 0 && errno != ENOENT)
		op->result = pb_err_set(&op->err, -errno, "%s: %s", path, strerror(errno));
}

static void after_pool(uv_work_t *work, int status)
{
	struct pb_node *node = work->data;
	struct node_record_op *op = node->records;

	(void)status;
	DL_DELETE(node->records, op);
	if (op->result < 0 && !op->done)
		pb_warn("node", "record of endpoint %u: %s", op->id, op->err.text);
	if (op->done && !node->closing)
		op->done(node, op->serial, op->result, op->err.text);
	op_free(op);
	if (node->records)
		pump(node);
	else if (node->closing)
		node_finish(node);
}

static void pump(struct pb_node *node)
{
	node->record_work.data = node;
	uv_queue_work(node->loop, &node->record_work, on_pool, after_pool);
}

static void enqueue(struct pb_node *node, struct node_record_op *op)
{
	bool idle = !node->records;

	DL_APPEND(node->records, op);
	if (idle)
		pump(node);
}

int node_record_write(struct pb_node *node, const struct node_ep *ep,
		      void (*done)(struct pb_node *node, uint64_t serial, int result,
				   const char *text))
{
	struct node_record_op *op = calloc(1, sizeof(*op));
	struct node_announce a = *ep->claim;

	if (!op)
		return -ENOMEM;
	a.id = ep->rec.id;
	a.ifindex = ep->iface.ifindex ? ep->iface.ifindex : a.ifindex;
	snprintf(a.uid, sizeof(a.uid), "%s", ep->uid);
	op->id = ep->rec.id;
	op->serial = ep->serial;
	op->done = done;
	op->text = node_announce_record(&a);
	if (!op->text) {
		op_free(op);
		return -ENOMEM;
	}
	enqueue(node, op);
	return 0;
}

void node_record_remove(struct pb_node *node, uint32_t id)
{
	struct node_record_op *op = calloc(1, sizeof(*op));

	/* Without memory it stays, and is found to be of no pod at the next start. */
	if (!op)
		return;
	op->id = id;
	enqueue(node, op);
}

/* ---- what an agent before left ---- */

struct load {
	uv_work_t work;
	struct pb_node *node;
	struct node_announce *found;
	size_t n;
};

static int read_record(const char *path, struct node_announce *ret_announce, struct pb_err *err)
{
	PB_BUF_FREE struct pb_buf text = {0};
	char name[IF_NAMESIZE];
	int rc = pb_file_read(path, RECORD_MAX, &text, err);

	if (rc == 0)
		rc = node_announce_parse(text.data, NODE_ANNOUNCE_RECORD, ret_announce, err);
	if (rc < 0)
		return rc;
	/* Renamed meanwhile, or gone; then another device may have the name by now. */
	if (!if_indextoname(ret_announce->ifindex, name))
		return -ENODEV;
	memcpy(ret_announce->interface, name, sizeof(name));
	return 0;
}

static void load_one(struct load *load, const char *name)
{
	PB_FREE char *path = pb_sprintf("%s/%s", load->node->record_dir, name);
	struct node_announce *grown = reallocarray(load->found, load->n + 1, sizeof(*load->found));
	struct pb_err err = {0};
	int rc;

	if (!grown || !path)
		return;
	load->found = grown;
	rc = read_record(path, &load->found[load->n], &err);
	if (rc == 0) {
		load->n++;
		return;
	}
	if (rc != -ENODEV)
		pb_warn("node",
			"%s: %s; the record is removed, the pod list will say whose "
			"interface it is",
			path, err.text);
	unlink(path);
}

static void load_on_pool(uv_work_t *work)
{
	struct load *load = work->data;
	DIR *dir = opendir(load->node->record_dir);
	const struct dirent *entry;

	if (!dir)
		return;
	while (load->n < RECORDS_MAX && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			load_one(load, entry->d_name);
	closedir(dir);
}

static void loaded(uv_work_t *work, int status)
{
	struct load *load = work->data;
	struct pb_node *node = load->node;

	(void)status;
	node->loading = false;
	node->loaded = true;
	for (size_t i = 0; i < load->n && !node->closing; i++)
		node_claim_restore(node, &load->found[i]);
	free(load->found);
	free(load);
	if (node->closing) {
		node_finish(node);
		return;
	}
	node_watch(node);
	node_schedule(node, 0);
}

int node_records_load(struct pb_node *node, const char *run_dir, struct pb_err *err)
{
	struct load *load;
	int rc;

	node->record_dir = pb_sprintf("%s/endpoints", run_dir);
	if (!node->record_dir)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_dir_make_own(node->record_dir, 0700, err);
	if (rc < 0)
		return rc;
	load = calloc(1, sizeof(*load));
	if (!load)
		return pb_err_set(err, -ENOMEM, "out of memory");
	load->node = node;
	load->work.data = load;
	node->loading = true;
	uv_queue_work(node->loop, &load->work, load_on_pool, loaded);
	return 0;
}
