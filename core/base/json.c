/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Short names for what the agent does with cJSON all the time.
 */
#include <base/json.h>

void pb_cleanup_json(cJSON **json)
{
	cJSON_Delete(*json);
}

const char *pb_json_str(const cJSON *obj, const char *key, const char *fallback)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsString(item) ? item->valuestring : fallback;
}

double pb_json_num(const cJSON *obj, const char *key, double fallback)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

bool pb_json_bool(const cJSON *obj, const char *key, bool fallback)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(obj, key);

	return cJSON_IsBool(item) ? cJSON_IsTrue(item) : fallback;
}

const cJSON *pb_json_path(const cJSON *obj, const char *path)
{
	char key[64];

	while (obj && *path) {
		size_t len = strcspn(path, ".");

		if (len >= sizeof(key))
			return NULL;
		memcpy(key, path, len);
		key[len] = '\0';
		obj = cJSON_GetObjectItemCaseSensitive(obj, key);
		path += len + (path[len] == '.');
	}
	return obj;
}

cJSON *pb_json_table(const struct pb_json_column *columns, cJSON **ret_items)
{
	cJSON *table = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(table, "columns");

	for (; columns->title; columns++) {
		cJSON *c = cJSON_CreateObject();

		cJSON_AddStringToObject(c, "title", columns->title);
		cJSON_AddStringToObject(c, "field", columns->field);
		cJSON_AddItemToArray(list, c);
	}
	*ret_items = cJSON_AddArrayToObject(table, "items");
	if (!*ret_items) {
		cJSON_Delete(table);
		return NULL;
	}
	return table;
}
