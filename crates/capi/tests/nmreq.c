/* nmreq_*: parts of names, lists of options, parsers of a program; nmctx_*: contexts. */
#include "messages.h"

static void
parts(void)
{
	const char *spec = "netmap:foo{1-3/x@7@conf:rings=1", *at = spec;
	struct nmreq_header hdr, before;
	struct nmreq_register reg, reg_before;

	memset(&hdr, 'x', sizeof(hdr));
	nmreq_header_init(&hdr, NETMAP_REQ_REGISTER, &reg);
	CHECK(hdr.nr_version == 14 && hdr.nr_reqtype == 1 && hdr.nr_reserved == 0 && hdr.nr_name[63] == 0);
	CHECK(hdr.nr_body == (uintptr_t)&reg && hdr.nr_options == 0);

	CHECK(nmreq_header_decode(&at, &hdr, &keeper) == 0 && at == spec + 12);
	CHECK_STR(hdr.nr_name, "foo{1");
	CHECK(hdr.nr_body == (uintptr_t)&reg);
	memset(&reg, 0, sizeof(reg));
	reg.nr_flags = ~(uint64_t)0; /* replaced, not added to */
	reg.nr_tx_slots = 5;
	CHECK(nmreq_register_decode(&at, &reg, &keeper) == 0);
	CHECK_STR(at, "@conf:rings=1");
	CHECK(reg.nr_mode == NR_REG_ONE_NIC && reg.nr_ringid == 3 && reg.nr_flags == NR_EXCLUSIVE);
	CHECK(reg.nr_mem_id == 7 && reg.nr_tx_slots == 5);

	/* A memory set before stays, may be repeated, and not be contradicted. */
	at = "^";
	CHECK(nmreq_register_decode(&at, &reg, &keeper) == 0 && reg.nr_mem_id == 7 && *at == '\0');
	at = "@7";
	CHECK(nmreq_register_decode(&at, &reg, &keeper) == 0 && reg.nr_mem_id == 7 && *at == '\0');

	/* After a failure all is as before. */
	reg_before = reg;
	spec = at = "@8";
	CHECK(nmreq_register_decode(&at, &reg, &keeper) == -1 && errno == EINVAL && at == spec);
	CHECK_STR(messages(), "invalid setting of mem_id to 8 (already set to 7)\n");
	spec = at = "x/z";
	CHECK(nmreq_register_decode(&at, &reg, &keeper) == -1 && errno == EINVAL && at == spec);
	CHECK_STR(messages(), "unknown modifier: 'x'\n");
	CHECK(memcmp(&reg, &reg_before, sizeof(reg)) == 0);
	before = hdr;
	spec = at = "eth0";
	CHECK(nmreq_header_decode(&at, &hdr, &keeper) == -1 && errno == EINVAL && at == spec);
	CHECK(memcmp(&hdr, &before, sizeof(hdr)) == 0);
	CHECK_STR(messages(), "eth0: invalid request, prefix unknown or missing\n");

	at = NULL;
	errno = 0;
	CHECK(nmreq_get_mem_id(&at, &keeper) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "");
}

static void
lists(void)
{
	struct nmreq_option *o[4], *opt;
	struct nmreq_header hdr;
	uint32_t kinds = 0, i;

	nmreq_header_init(&hdr, NETMAP_REQ_REGISTER, NULL);
	for (i = 1; i < 4; i++) {
		o[i] = (struct nmreq_option *)calloc(1, sizeof(*o[i]));
		o[i]->nro_reqtype = i;
		nmreq_push_option(&hdr, o[i]);
	}
	nmreq_foreach_option(&hdr, opt)
		kinds = kinds * 10 + opt->nro_reqtype;
	CHECK(kinds == 321);
	CHECK(nmreq_find_option(&hdr, 2) == o[2] && nmreq_find_option(&hdr, 4) == NULL);
	nmreq_remove_option(&hdr, o[2]);
	CHECK(nmreq_find_option(&hdr, 2) == NULL && o[2]->nro_next == 0);
	nmreq_remove_option(&hdr, o[2]); /* not there any more */
	nmreq_remove_option(&hdr, o[3]);
	CHECK(hdr.nr_options == (uintptr_t)o[1] && o[3]->nro_next == 0);
	nmreq_push_option(&hdr, o[2]);
	nmreq_push_option(&hdr, o[3]);
	nmreq_free_options(&hdr);
	CHECK(hdr.nr_options == (uintptr_t)o[3]);

	CHECK_STR(nmreq_option_name(NETMAP_REQ_OPT_EXTMEM), "extmem");
	CHECK_STR(nmreq_option_name(NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS), "sync-kloop-eventfds");
	CHECK_STR(nmreq_option_name(NETMAP_REQ_OPT_CSB), "csb");
	CHECK_STR(nmreq_option_name(NETMAP_REQ_OPT_SYNC_KLOOP_MODE), "sync-kloop-mode");
	CHECK_STR(nmreq_option_name(NETMAP_REQ_OPT_OFFSETS), "offsets");
	CHECK_STR(nmreq_option_name(0), "unknown");
	CHECK_STR(nmreq_option_name(6), "unknown");
}

/* What the parsers saw, as text. */
static char seen[256];

static int
see(struct nmreq_parse_ctx *p, const char *who)
{
	size_t n = strlen(seen);
	int i;

	CHECK(p->token == &seen && p->ctx == &keeper);
	n += (size_t)snprintf(seen + n, sizeof(seen) - n, "%s(", who);
	for (i = 0; i < NMREQ_OPT_MAXKEYS; i++)
		if (p->keys[i] != NULL)
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "%d=%s ", i, p->keys[i]);
	snprintf(seen + n, sizeof(seen) - n, ")");
	return 0;
}

static int
see_one(struct nmreq_parse_ctx *p)
{
	return see(p, "one");
}

static int
see_two(struct nmreq_parse_ctx *p)
{
	return see(p, "two");
}

static int
refuse(struct nmreq_parse_ctx *p)
{
	see(p, "refuse");
	errno = EDOM;
	return -1;
}

static struct nmreq_opt_parser three = { "three", refuse, 0, 0, NMREQ_OPTF_ALLOWEMPTY, NULL, { { NULL, 0, 0 } } };
static struct nmreq_opt_parser two = { "two", see_two, -1, 1, NMREQ_OPTF_DISABLED, &three,
	{ { "k", 15, NMREQ_OPTK_MUSTSET }, { NULL, 0, 0 } } };
static struct nmreq_opt_parser one = { "one", see_one, 4, 3, NMREQ_OPTF_ALLOWEMPTY, &two,
	{ { "a_b", 4, NMREQ_OPTK_DEFAULT }, { "c", 0, NMREQ_OPTK_ALLOWEMPTY }, { "d", 1, NMREQ_OPTK_MUSTSET },
	    { NULL, 0, 0 }, { "hidden", 2, 0 } } };

static void
parser(const char *opts, int result, int number, const char *saw, const char *said)
{
	seen[0] = '\0';
	errno = 0;
	CHECK_ROW(opts, nmreq_options_decode(opts, &one, &seen, &keeper) == result && errno == number);
	CHECK_STR(seen, saw);
	CHECK_STR(messages(), said);
}

static void
parsers(void)
{
	parser("", 0, 0, "", "");
	parser("one", -1, EINVAL, "", "option list does not start with '@'\n");
	parser("@one", 0, 0, "one()", "");
	parser("@one=x:y=z,c", 0, 0, "one(4=x:y=z,c )", "");
	parser("@one:a-b=1,c,d=2", 0, 0, "one(0=c 1=2 4=1 )", "");
	parser("@one:c=,d=2", 0, 0, "one(1=2 )", "");
	parser("@one:hidden=1", -1, EINVAL, "", "unknown key: 'hidden'\n");
	parser("@one:c", -1, EINVAL, "", "option 'one': mandatory key 'd' not assigned\n");
	parser("@two:k=1", -1, EOPNOTSUPP, "", "option 'two' is not supported\n");
	two.flags = 0;
	parser("@one:d=1@two:k=2", 0, 0, "one(1=1 )two(15=2 )", "");
	parser("@two", -1, EINVAL, "", "syntax error: missing body after 'two'\n");
	parser("@two=1", -1, EINVAL, "", "syntax error: '=' not valid after 'two'\n");
	/* What was done before a bad one stays done; who refuses speaks for himself. */
	parser("@one@three=x@two:k=1", -1, EDOM, "one()refuse(0=x )", "");
	/* A key id that there is no room for. */
	two.keys[0].id = NMREQ_OPT_MAXKEYS;
	parser("@two:k=1", -1, EINVAL, "", "option 'two': no such key id\n");
	CHECK(nmreq_options_decode("@x", NULL, NULL, &keeper) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "unknown option: 'x'\n");
}

static void
contexts(struct nmctx *first)
{
	char long_text[1200], want[1300];
	struct nmport_d *d;
	void *mem;

	CHECK(nmctx_get() == &keeper);
	nmctx_ferror(&keeper, "%s %d %ld %u %c %x %s %d%%", "a", -1, -2L, 3U, 'c', 0xfU, "tail", 9);
	CHECK_STR(messages(), "a -1 -2 3 c f tail 9%\n");
	nmctx_ferror(&keeper, "%.2f %d %.1f %.1f %.1f %.1f %.1f %.1f %.1f %.1f %s", 1.25, 7, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
	    8.0, 9.0, "s");
	CHECK_STR(messages(), "1.25 7 2.0 3.0 4.0 5.0 6.0 7.0 8.0 9.0 s\n");
	memset(long_text, 'y', sizeof(long_text));
	long_text[1000] = '\0';
	nmctx_ferror(&keeper, "%s", long_text);
	CHECK_STR(messages(), "error message too long\n");
	long_text[999] = '\0';
	nmctx_ferror(&keeper, "%s", long_text);
	snprintf(want, sizeof(want), "%s\n", long_text);
	CHECK_STR(messages(), want);
	nmctx_ferror(&keeper, "%s", "");
	CHECK_STR(messages(), "internal error\n");
	keeper.verbose = 0;
	nmctx_ferror(&keeper, "quiet");
	CHECK(nmport_prepare("nonsense") == NULL && errno == EINVAL);
	CHECK_STR(messages(), "");
	keeper.verbose = 1;

	kept.locks = 0;
	nmctx_lock(&keeper);
	CHECK(kept.locked == 1);
	nmctx_unlock(&keeper);
	CHECK(kept.locked == 0 && kept.locks == 1);
	nmctx_free(&keeper, nmctx_malloc(&keeper, 10));
	/* None: the default one. */
	nmctx_ferror(NULL, "%s", "to the default");
	CHECK_STR(messages(), "to the default\n");
	nmctx_lock(NULL);
	CHECK(kept.locked == 1);
	nmctx_unlock(NULL);
	mem = nmctx_malloc(NULL, 10);
	CHECK(mem != NULL && kept.living == 1);
	nmctx_free(NULL, mem);
	CHECK(kept.living == 0);

	/* Descriptors keep the context that they were made in. */
	d = nmport_new();
	CHECK(d != NULL && d->ctx == &keeper && d->fd == -1 && d->mem == NULL && d->nifp == NULL);
	CHECK(nmctx_set_default(first) == &keeper && nmctx_get() == first);
	nmport_delete(d);
	nmctx_set_default(&keeper);

	/* The first one. */
	CHECK(first->verbose == 1 && first->error != NULL && first->malloc != NULL && first->free != NULL);
#ifdef LIBNETMAP_NOTHREADSAFE
	(void)first;
#else
	CHECK(first->lock != NULL);
	nmctx_lock(first);
	nmctx_unlock(first);
#endif
}

/* The default context's copy with a lock becomes the default. */
static void
made_threadsafe(void)
{
	static struct nmctx bare;
	struct nmctx *safe;

	bare = keeper;
	bare.lock = NULL;
	nmctx_lock(&bare); /* nothing to take */
	nmctx_unlock(&bare);
	nmctx_set_default(&bare);
	nmctx_set_threadsafe();
	safe = nmctx_get();
	CHECK(safe != &bare && safe->lock != NULL && safe->error == bare.error && bare.lock == NULL);
	nmctx_ferror(NULL, "%s", "kept as before");
	CHECK_STR(messages(), "kept as before\n");
	nmctx_set_threadsafe();
	CHECK(nmctx_get() == safe);
	nmctx_lock(safe);
	nmctx_unlock(safe);
	nmctx_set_default(&keeper);
}

/* Each allocation in turn fails: an error, nothing lost, and nothing left behind. */
static void
no_memory(void)
{
	long n;

	nmport_enable_option("offset");
	for (n = 0;; n++) {
		struct nmport_d *d;

		kept.allocs_left = n;
		errno = 0;
		d = nmport_prepare("vale0:1@offset=64@offset=32");
		if (d != NULL) {
			nmport_undo_prepare(d);
			break;
		}
		CHECK(errno == ENOMEM && kept.living == 0);
		CHECK(strstr(messages(), "cannot allocate ") != NULL);
	}
	CHECK(n == 5); /* the descriptor, and two for each option */
	kept.allocs_left = -1;
	CHECK_STR(messages(), "");
	nmport_disable_option("offset");
}

int
main(void)
{
	struct nmctx *first = keep_messages();

	parts();
	lists();
	parsers();
	contexts(first);
	no_memory();
	made_threadsafe();
	CHECK(kept.living == 0);
	return check_result();
}
