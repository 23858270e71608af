/* Every row of the table of userapi.md 6, through nmport_parse(). */
#include <unistd.h>

#include "messages.h"

#define OK(name, mode, ringid, flags, mem) name, NULL, 0, mode, ringid, flags, mem
#define BAD(error) NULL, error, EINVAL, 0, 0, 0, 0
#define BAD_AS(number, error) NULL, error, number, 0, 0, 0, 0

#define C63 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

static const struct row {
	const char *spec;
	const char *name; /* or */
	const char *error;
	int number;
	uint32_t mode;
	uint16_t ringid;
	uint64_t flags;
	uint16_t mem_id;
} rows[] = {
	{ "netmap:eth0", OK("eth0", 1, 0, 0, 0) },
	{ "netmap:eth0^", OK("eth0", 2, 0, 0, 0) },
	{ "netmap:eth0^2", OK("eth0", 8, 2, 0, 0) },
	{ "netmap:eth0*", OK("eth0", 3, 0, 0, 0) },
	{ "netmap:eth0*2", BAD("unexpected character: '2'") },
	{ "netmap:eth0-3", OK("eth0", 4, 3, 0, 0) },
	{ "netmap:eth0-4094", OK("eth0", 4, 4094, 0, 0) },
	{ "netmap:eth0-4095", BAD("'4095' out of range [0, 4095)") },
	{ "netmap:eth0-", BAD("unexpected end of request") },
	{ "netmap:eth0/", BAD("unexpected end of request") },
	{ "netmap:eth0@5/", BAD("unexpected end of request") },
	{ "netmap:eth0- 1", BAD("got ' 1' while expecting a number") },
	{ "netmap:eth0-01x", BAD("unexpected character: 'x'") },
	{ "netmap:eth0-1^", BAD("unexpected character: '^'") },
	{ "netmap:eth0^-1", BAD("unexpected character: '-'") },
	{ "netmap:eth0*-1", BAD("unexpected character: '-'") },
	{ "netmap:eth0-@conf:rings=1", BAD("got '@conf:rings=1' while expecting a number") },
	{ "netmap:eth0-99999999999999999999",
	    BAD_AS(ERANGE, "'9223372036854775807' out of range [0, 4095)") },
	{ "netmap:eth0*/z", OK("eth0", 3, 0, 0x400, 0) },
	{ "netmap:eth0^2@5/x@5", OK("eth0", 8, 2, 0x800, 5) },
	{ "netmap:eth0/@5", OK("eth0", 1, 0, 0, 5) },
	{ "netmap:eth0-1/T", OK("eth0", 4, 1, 0x4000, 0) },
	{ "netmap:eth0/xT", OK("eth0", 1, 0, 0x4800, 0) },
	{ "netmap:eth0/rz@5", OK("eth0", 1, 0, 0x600, 5) },
	{ "netmap:eth0@5/x", OK("eth0", 1, 0, 0x800, 5) },
	{ "netmap:eth0^1/R", OK("eth0", 8, 1, 0x2000, 0) },
	{ "netmap:eth0^/x@3", OK("eth0", 2, 0, 0x800, 3) },
	{ "netmap:eth0/q", BAD("unrecognized flag: 'q'") },
	{ "netmap:eth0/x/z", BAD("unrecognized flag: '/'") },
	{ "netmap:eth0@5x", BAD("unexpected character: 'x'") },
	{ "netmap:eth0@0", BAD("invalid mem_id: '0'") },
	{ "netmap:eth0@5@6", BAD("invalid setting of mem_id to 6 (already set to 5)") },
	{ "netmap:eth0@5@5", OK("eth0", 1, 0, 0, 5) },
	{ "netmap:eth0@", BAD("invalid empty mem_id") },
	{ "netmap:eth0@5@", BAD("invalid empty mem_id") },
	{ "netmap:foo{1", OK("foo{1", 1, 0, 0, 0) },
	{ "netmap:foo}abc_1", OK("foo}abc_1", 1, 0, 0, 0) },
	{ "netmap:foo{1-0", OK("foo{1", 4, 0, 0, 0) },
	{ "netmap:foo{", BAD("netmap:foo{: invalid empty pipe name") },
	{ "netmap:foo{-1", OK("foo{", 4, 1, 0, 0) },
	{ "netmap:foo{^", OK("foo{", 2, 0, 0, 0) },
	{ "netmap:foo{/x", OK("foo{", 1, 0, 0x800, 0) },
	{ "netmap:foo{@conf:rings=1", OK("foo{", 1, 0, 0, 0) },
	{ "netmap:foo{a.b", BAD("netmap:foo{a.b: invalid pipe name 'a.b'") },
	{ "netmap:a{1}2", BAD("netmap:a{1}2: invalid pipe name '1}2'") },
	{ "netmap:{1", OK("{1", 1, 0, 0, 0) },
	{ "netmap:foo.100", OK("foo.100", 1, 0, 0, 0) },
	{ "netmap:foo:1", OK("foo:1", 1, 0, 0, 0) },
	{ "netmap:eth0+", OK("eth0+", 1, 0, 0, 0) },
	{ "netmap:", BAD("netmap:: invalid empty port name") },
	{ "netmap:^", BAD("netmap:^: invalid empty port name") },
	{ "vale0:1", OK("vale0:1", 1, 0, 0, 0) },
	{ "vale:1", OK("vale:1", 1, 0, 0, 0) },
	{ "vale0:", OK("vale0:", 1, 0, 0, 0) },
	{ "valeA_b:c.d", OK("valeA_b:c.d", 1, 0, 0, 0) },
	{ "vale0:1{2/x", OK("vale0:1{2", 1, 0, 0x800, 0) },
	{ "vale0:^", OK("vale0:", 2, 0, 0, 0) },
	{ "vale0", BAD("vale0: missing ':'") },
	{ "vale", BAD("vale: missing ':'") },
	{ "netmapeth0", BAD("netmapeth0: missing ':'") },
	{ "vale-a:1", BAD("vale-a:1: invalid identifier '-a'") },
	{ "eth0", BAD("eth0: invalid request, prefix unknown or missing") },
	{ "val", BAD("val: invalid request, prefix unknown or missing") },
	{ "", BAD(": invalid request, prefix unknown or missing") },
	{ "netmapX:eth0", BAD("netmapX:eth0: no identifier allowed between 'netmap' and ':'") },
	{ "netmap:" C63, OK(C63, 1, 0, 0, 0) },
	{ "netmap:" C63 "f", BAD("name '" C63 "f' too long") },
	/* No UTF-8: bytes stay as they are, in names and in messages. */
	{ "netmap:\xe9\xff", OK("\xe9\xff", 1, 0, 0, 0) },
	{ "netmap:a/\xe9", BAD("unrecognized flag: '\xe9'") },

	{ "vale0:1@conf=7", BAD("syntax error: '=' not valid after 'conf'") },
	{ "vale0:1@conf", BAD("syntax error: missing body after 'conf'") },
	{ "vale0:1@conf:", OK("vale0:1", 1, 0, 0, 0) },
	{ "vale0:1@conf:rings", BAD("option 'conf': missing '=value' for key 'rings'") },
	{ "vale0:1@conf:rings=", OK("vale0:1", 1, 0, 0, 0) },
	{ "vale0:1@conf:tx-rings", BAD("option 'conf': missing '=value' for key 'tx_rings'") },
	{ "vale0:1@conf:bogus=1", BAD("unknown key: 'bogus'") },
	{ "vale0:1@conf:no-such=1", BAD("unknown key: 'no_such'") },
	{ "vale0:1@conf:=1", BAD("unknown key: '=1'") },
	{ "vale0:1@conf:rings=1,", BAD("unknown key: ''") },
	{ "vale0:1@conf:rings=1@", BAD("invalid empty option") },
	{ "vale0:1@share=", BAD("missing value for option 'share'") },
	{ "vale0:1@share:", BAD("option 'share': mandatory key 'port' not assigned") },
	{ "vale0:1@share:port=", BAD("option 'share': mandatory key 'port' not assigned") },
	{ "vale0:1@extmem:if-num=3", BAD("option 'extmem': mandatory key 'file' not assigned") },
	{ "vale0:1@conf:rings=1,rings=2", BAD("option 'conf': duplicate key 'rings', already set to '1'") },
	{ "vale0:1@bogus=1", BAD("unknown option: 'bogus'") },
	{ "vale0:1@@conf:rings=1", BAD("invalid empty option") },
	{ "vale0:1@2@conf:rings=1", OK("vale0:1", 1, 0, 0, 2) },
	{ "vale0:1/x@conf:rings=1@conf:slots=3", OK("vale0:1", 1, 0, 0x800, 0) },
	{ "vale0:1@conf:rings=2@3", BAD("unknown option: '3'") },
	{ "vale0:1@offset=64", BAD_AS(EOPNOTSUPP, "option 'offset' is not supported") },
	{ "vale0:1@extmem=/nonexistent", BAD_AS(ENOENT, "cannot open '/nonexistent': No such file or directory") },
	/* Errors come in the order of the text. */
	{ "vale0:1@extmem=/nonexistent@bogus", BAD_AS(ENOENT, "cannot open '/nonexistent': No such file or directory") },
	{ "vale0:1@bogus@extmem=/nonexistent", BAD("unknown option: 'bogus'") },
	/* Ringway's own option is for its own programs. */
	{ "netmap:eth0@mode=copy", BAD("unknown option: 'mode'") },
};

/* A descriptor after a failure: nothing is left in it. */
static int
is_empty(const struct nmport_d *d)
{
	struct nmreq_header no_header;
	struct nmreq_register no_register;

	memset(&no_header, 0, sizeof(no_header));
	memset(&no_register, 0, sizeof(no_register));
	return memcmp(&d->hdr, &no_header, sizeof(no_header)) == 0 &&
	    memcmp(&d->reg, &no_register, sizeof(no_register)) == 0 && d->extmem == NULL && d->clist == NULL;
}

static void
fails(const char *spec, int number, const char *error)
{
	struct nmport_d *d = nmport_new();
	char line[256];

	errno = 0;
	CHECK_ROW(spec, nmport_parse(d, spec) == -1 && errno == number);
	snprintf(line, sizeof(line), "%s\n", error);
	CHECK_STR(messages(), line);
	CHECK_ROW(spec, is_empty(d));
	nmport_delete(d);
	CHECK_ROW(spec, nmport_prepare(spec) == NULL && errno == number);
	messages();
}

static void
table(void)
{
	size_t i;

	for (i = 0; i < ROWS(rows); i++) {
		const struct row *row = &rows[i];
		struct nmport_d *d;

		if (row->error != NULL) {
			fails(row->spec, row->number, row->error);
			continue;
		}
		d = nmport_prepare(row->spec);
		CHECK_ROW(row->spec, d != NULL);
		CHECK_STR(messages(), "");
		if (d == NULL)
			continue;
		CHECK_STR(d->hdr.nr_name, row->name);
		CHECK_ROW(row->spec, d->hdr.nr_version == NETMAP_API && d->hdr.nr_reqtype == NETMAP_REQ_REGISTER);
		CHECK_ROW(row->spec, d->hdr.nr_body == (uintptr_t)&d->reg && d->hdr.nr_options == 0);
		CHECK_ROW(row->spec, d->reg.nr_mode == row->mode && d->reg.nr_ringid == row->ringid);
		CHECK_ROW(row->spec, d->reg.nr_flags == row->flags && d->reg.nr_mem_id == row->mem_id);
		CHECK_ROW(row->spec, d->fd == -1 && d->ctx == nmctx_get() && !d->register_done);
		nmport_undo_prepare(d);
	}
}

static void
conf(void)
{
	static const struct {
		const char *spec;
		uint16_t tx_rings, rx_rings, host_tx_rings, host_rx_rings;
		uint32_t tx_slots, rx_slots;
	} confs[] = {
		{ "netmap:eth0@conf:rings=2,slots=512", 2, 2, 0, 0, 512, 512 },
		{ "vale0:1@conf:tx-rings=2,rx_rings=3,host-rings=4", 2, 3, 4, 4, 0, 0 },
		{ "vale0:1@conf:rings=,rings=3", 3, 3, 0, 0, 0, 0 },
		{ "vale0:1@conf:rings=2@conf:rings=3", 3, 3, 0, 0, 0, 0 },
		{ "vale0:1/x@conf:rings=1@conf:slots=3", 1, 1, 0, 0, 3, 3 },
		{ "vale0:1@2@conf:rings=1", 1, 1, 0, 0, 0, 0 },
		{ "vale0:1@conf:slots=9,tx-slots=8,host-tx-rings=1,host_rx-rings=x", 0, 0, 1, 0, 8, 9 },
		{ "vale0:1@conf:rings=65537", 1, 1, 0, 0, 0, 0 },
	};
	size_t i;

	for (i = 0; i < ROWS(confs); i++) {
		struct nmport_d *d = nmport_prepare(confs[i].spec);
		const char *spec = confs[i].spec;

		CHECK_ROW(spec, d != NULL);
		if (d == NULL)
			continue;
		CHECK_ROW(spec, d->reg.nr_tx_rings == confs[i].tx_rings && d->reg.nr_rx_rings == confs[i].rx_rings);
		CHECK_ROW(spec, d->reg.nr_host_tx_rings == confs[i].host_tx_rings);
		CHECK_ROW(spec, d->reg.nr_host_rx_rings == confs[i].host_rx_rings);
		CHECK_ROW(spec, d->reg.nr_tx_slots == confs[i].tx_slots && d->reg.nr_rx_slots == confs[i].rx_slots);
		nmport_undo_prepare(d);
	}
}

static void
offset(void)
{
	static const struct {
		const char *spec;
		uint64_t max;
		uint32_t bits;
	} offsets[] = {
		{ "vale0:1@offset=64", 64, 0 },
		{ "vale0:1@offset:initial=64,bits=16", 64, 16 },
		{ "vale0:1@offset=64,bits=3", 64, 0 },
	};
	size_t i;

	CHECK(nmport_enable_option("bogus") == -1 && errno == EOPNOTSUPP);
	CHECK(nmport_enable_option("mode") == -1 && errno == EOPNOTSUPP);
	CHECK_STR(messages(), "");
	CHECK(nmport_enable_option("offset") == 0);
	for (i = 0; i < ROWS(offsets); i++) {
		struct nmport_d *d = nmport_prepare(offsets[i].spec);
		struct nmreq_opt_offsets *opt;

		CHECK_ROW(offsets[i].spec, d != NULL);
		if (d == NULL)
			continue;
		opt = (struct nmreq_opt_offsets *)(void *)nmreq_find_option(&d->hdr, NETMAP_REQ_OPT_OFFSETS);
		CHECK_ROW(offsets[i].spec, opt != NULL && opt->nro_max_offset == offsets[i].max);
		CHECK_ROW(offsets[i].spec, opt != NULL && opt->nro_initial_offset == offsets[i].max);
		CHECK_ROW(offsets[i].spec, opt != NULL && opt->nro_offset_bits == offsets[i].bits && opt->nro_min_gap == 0);
		/* What an option got is given back. */
		nmport_undo_parse(d);
		CHECK_ROW(offsets[i].spec, is_empty(d));
		nmport_delete(d);
	}
	fails("vale0:1@offset=64@bogus", EINVAL, "unknown option: 'bogus'");
	nmport_disable_option("offset");
	nmport_disable_option("bogus");
	fails("vale0:1@offset=64", EOPNOTSUPP, "option 'offset' is not supported");
	nmport_disable_option("conf");
	fails("vale0:1@conf:rings=1", EOPNOTSUPP, "option 'conf' is not supported");
	CHECK(nmport_enable_option("conf") == 0);
}

static void
too_long(void)
{
	char spec[1200];

	memset(spec, 'n', sizeof(spec));
	memcpy(spec, "netmap:", 7);
	spec[sizeof(spec) - 1] = '\0';
	fails(spec, EINVAL, "error message too long");
}

int
main(void)
{
	keep_messages();
	table();
	conf();
	offset();
	too_long();
	if (access(NETMAP_DEVICE_NAME, F_OK) != 0)
		fails("vale0:1@share=vale0:2", ENOENT, "cannot open /dev/netmap: No such file or directory");
	CHECK(kept.living == 0);
	return check_result();
}
