/* Every row of the table of userapi.md 3, through nm_parse(). */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>

#include "check.h"

static const struct row {
	const char *spec;
	const char *name; /* or */
	const char *error;
	uint16_t ringid;
	uint32_t flags;
	uint16_t memid;
} rows[] = {
	{ "netmap:eth0", "eth0", NULL, 0, 1, 0 },
	{ "netmap:eth0^", "eth0", NULL, 0, 2, 0 },
	{ "netmap:eth0*", "eth0", NULL, 0, 3, 0 },
	{ "netmap:eth0-3", "eth0", NULL, 3, 4, 0 },
	{ "netmap:eth0-4094", "eth0", NULL, 0xffe, 4, 0 },
	{ "netmap:eth0-4095", NULL, "'4095' out of range [0, 4095)", 0, 0, 0 },
	{ "netmap:eth0-", NULL, "unexpected end of port name", 0, 0, 0 },
	{ "netmap:foo{7", "foo", NULL, 7, 5, 0 },
	{ "netmap:foo}0", "foo", NULL, 0, 6, 0 },
	{ "netmap:foo{a", NULL, "unexpected character: 'a'", 0, 0, 0 },
	{ "netmap:eth0/xzrtRT", "eth0", NULL, 0, 0x6f01, 0 },
	{ "netmap:eth0/", NULL, "unexpected end of port name", 0, 0, 0 },
	{ "netmap:eth0/q", NULL, "unrecognized flag: 'q'", 0, 0, 0 },
	{ "netmap:eth0/x/z", NULL, "unrecognized flag: '/'", 0, 0, 0 },
	{ "netmap:eth0-/x", "eth0", NULL, 0, 0x804, 0 },
	{ "netmap:foo{/x", "foo", NULL, 0, 0x805, 0 },
	{ "netmap:eth0-@3", "eth0", NULL, 0, 4, 3 },
	{ "netmap:eth0- 3", "eth0", NULL, 3, 4, 0 },
	{ "netmap:eth0-+3", "eth0", NULL, 3, 4, 0 },
	{ "netmap:eth0--5", NULL, "'-5' out of range [0, 4095)", 0, 0, 0 },
	{ "netmap:eth0-1-2", NULL, "unexpected character: '-'", 0, 0, 0 },
	{ "netmap:foo{", NULL, "unexpected end of port name", 0, 0, 0 },
	{ "netmap:eth0@", NULL, "unexpected end of port name", 0, 0, 0 },
	{ "netmap:eth0@3/", NULL, "unexpected end of port name", 0, 0, 0 },
	{ "netmap:{1", "", NULL, 1, 5, 0 },
	{ "netmap:eth0/@3", "eth0", NULL, 0, 1, 3 },
	{ "netmap:eth0/x@3/z", "eth0", NULL, 0, 0xc01, 3 },
	{ "netmap:eth0@a", NULL, "invalid memid 0, must be >0", 0, 0, 0 },
	{ "netmap:eth0@-3", NULL, "invalid memid -3, must be >0", 0, 0, 0 },
	{ "netmap:eth0@3/x", "eth0", NULL, 0, 0x801, 3 },
	{ "netmap:eth0*/x@2", "eth0", NULL, 0, 0x803, 2 },
	{ "netmap:eth0@0", NULL, "invalid memid 0, must be >0", 0, 0, 0 },
	{ "netmap:eth0@2@3", NULL, "double setting of memid", 0, 0, 0 },
	{ "netmap:eth0^1", NULL, "unexpected character: '1'", 0, 0, 0 },
	{ "vale0:1", "vale0:1", NULL, 0, 1, 0 },
	{ "vale:1", "vale:1", NULL, 0, 1, 0 },
	{ "vale0:1{3/x", "vale0:1", NULL, 3, 0x805, 0 },
	{ "vale0:", "vale0:", NULL, 0, 1, 0 },
	{ "vale:", "vale:", NULL, 0, 1, 0 },
	{ "vale0:1^", "vale0:1", NULL, 0, 2, 0 },
	{ "vale0:1-2", "vale0:1", NULL, 2, 4, 0 },
	{ "vale", NULL, "missing ':' in vale name", 0, 0, 0 },
	{ "vale-a:1", NULL, "invalid bridge name", 0, 0, 0 },
	{ "vale0:a.b", NULL, "invalid bridge port name", 0, 0, 0 },
	{ "netmap:0123456789abcdef", NULL, "name too long", 0, 0, 0 },
	{ "netmap:0123456789abcde", "0123456789abcde", NULL, 0, 1, 0 },
	{ "netmap:", "", NULL, 0, 1, 0 },
	{ "netmap:eth0+1", "eth0+1", NULL, 0, 1, 0 },
	{ "netmap:eth0@65539", "eth0", NULL, 0, 1, 3 },
	{ "netmap:eth0-99999999999999999999", NULL, "'9223372036854775807' out of range [0, 4095)", 0, 0, 0 },
};

static void
table(void)
{
	size_t i;

	for (i = 0; i < ROWS(rows); i++) {
		const struct row *row = &rows[i];
		struct nm_desc *d = (struct nm_desc *)calloc(1, sizeof(*d));
		char err[MAXERRMSG];
		int result;

		memset(err, 'x', sizeof(err));
		errno = 0;
		result = nm_parse(row->spec, d, err);
		if (row->error != NULL) {
			CHECK_ROW(row->spec, result == -1 && errno == EINVAL && d->self == NULL);
			CHECK_STR(err, row->error);
			CHECK_ROW(row->spec, err[MAXERRMSG - 1] == '\0'); /* filled to the end */
			CHECK_ROW(row->spec, nm_parse(row->spec, d, NULL) == -1);
			free(d);
			continue;
		}
		CHECK_ROW(row->spec, result == 0 && IS_NETMAP_DESC(d));
		CHECK_STR(d->req.nr_name, row->name);
		CHECK_ROW(row->spec, d->req.nr_ringid == row->ringid);
		CHECK_ROW(row->spec, d->req.nr_flags == row->flags);
		CHECK_ROW(row->spec, d->req.nr_arg2 == row->memid);
		free(d);
	}
}

/* What is there stays in ring number and flags, but not in the memory and the name. */
static void
adds(void)
{
	struct nm_desc *d = (struct nm_desc *)calloc(1, sizeof(*d));

	memset(d->req.nr_name, 'n', sizeof(d->req.nr_name));
	d->req.nr_ringid = NETMAP_DO_RX_POLL | 8;
	d->req.nr_flags = NR_ACCEPT_VNET_HDR;
	d->req.nr_arg2 = 9;
	CHECK(nm_parse("netmap:e-3/x", d, NULL) == 0);
	CHECK(d->req.nr_ringid == (NETMAP_DO_RX_POLL | 11));
	CHECK(d->req.nr_flags == (NR_ACCEPT_VNET_HDR | NR_EXCLUSIVE | NR_REG_ONE_NIC));
	CHECK(d->req.nr_arg2 == 0);
	CHECK_STR(d->req.nr_name, "e");
	free(d);
}

int
main(void)
{
	const char *word = "a_Z9-";

	table();
	adds();
	CHECK(nm_is_identifier(word, word + 4) == 1 && nm_is_identifier(word, word + 5) == 0);
	CHECK(nm_is_identifier(word, word) == 1);
	return check_result();
}
