/* nmport_*: binding, mapping, sharing and closing, on a device that is not one. argv[1]: a file to use as memory. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fake_device.h"
#include "messages.h"

static struct nmport_d *
open_port(const char *spec)
{
	struct nmport_d *d = nmport_open(spec);

	if (d == NULL) {
		CHECK_ROW(spec, d != NULL);
		exit(1);
	}
	return d;
}

/* Nothing that was opened, mapped or allocated is left. */
static void
all_closed(void)
{
	CHECK(fake.opens == fake.closes && fake.mmaps == fake.munmaps && kept.living == 0);
	CHECK(keeper.mem_descs == NULL && kept.locked == 0);
	CHECK_STR(messages(), "");
}

static void
one_port(void)
{
	struct nmport_d *d;

	fake_reset();
	d = open_port("netmap:eth0-1/x@conf:slots=16");
	CHECK_STR(fake.hdr.nr_name, "eth0");
	CHECK(fake.hdr.nr_options == 0 && fake.reg.nr_mode == NR_REG_ONE_NIC && fake.reg.nr_ringid == 1);
	CHECK(fake.reg.nr_flags == NR_EXCLUSIVE && fake.reg.nr_tx_slots == 16);
	CHECK(d->register_done && d->mmap_done && d->fd >= 0 && d->reg.nr_tx_slots == SLOTS);
	CHECK(d->mem != NULL && d->mem == keeper.mem_descs && d->mem->refcount == 1 && d->mem->mem_id == 1);
	CHECK(d->mem->size == fake_bytes() && !d->mem->is_extmem && d->mem->next == NULL && d->mem->prev == NULL);
	CHECK((char *)d->nifp == (char *)d->mem->mem + NIFP_AT);
	CHECK(d->first_tx_ring == 0 && d->last_tx_ring == TX_RINGS - 1 && d->cur_tx_ring == 0);
	CHECK(d->first_rx_ring == 0 && d->last_rx_ring == RX_RINGS - 1 && d->cur_rx_ring == 0);

	errno = 0;
	CHECK(nmport_register(d) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "eth0: already registered\n");
	CHECK(nmport_mmap(d) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "eth0: already mapped\n");
	CHECK(nmport_extmem(d, d, 4096) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "eth0: cannot set extmem of an already registered port\n");

	nmport_undo_mmap(d);
	CHECK(d->mem == NULL && d->nifp == NULL && !d->mmap_done && d->last_rx_ring == 0 && fake.munmaps == 1);
	CHECK(nmport_mmap(d) == 0 && d->mmap_done && d->last_rx_ring == RX_RINGS - 1);
	nmport_undo_open_desc(d);
	CHECK(d->fd == -1 && !d->register_done && d->mem == NULL);
	CHECK(nmport_mmap(d) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "cannot map unregistered port\n");
	CHECK(nmport_open_desc(d) == 0);
	nmport_undo_mmap(d);
	nmport_undo_register(d);
	CHECK(d->fd == -1 && !d->register_done && fake.opens == fake.closes);
	nmport_undo_register(d); /* nothing is left to undo */
	CHECK(fake.opens == fake.closes);
	CHECK(nmport_register(d) == 0 && d->fd >= 0 && d->register_done && nmport_mmap(d) == 0);
	nmport_close(d);
	nmport_close(NULL);
	nmport_undo_prepare(NULL);
	all_closed();
}

static void
rings_bound(void)
{
	static const struct {
		uint16_t bound[2];
		uint16_t first, last;
	} rows[] = {
		{ { 0, 2 }, 0, 2 },
		{ { 1, 1 }, 1, 1 },
		{ { 1, 2 }, 1, 2 },
		{ { 9, 9 }, RX_RINGS + 1, RX_RINGS }, /* none: the host ring counts too */
	};
	size_t i;

	for (i = 0; i < ROWS(rows); i++) {
		struct nmport_d *d;

		fake_reset();
		fake.bound[0][0] = 9;
		fake.bound[1][0] = rows[i].bound[0];
		fake.bound[1][1] = rows[i].bound[1];
		d = open_port("netmap:eth0");
		CHECK(d->first_rx_ring == rows[i].first && d->last_rx_ring == rows[i].last);
		CHECK(d->cur_rx_ring == rows[i].first);
		CHECK(d->first_tx_ring == TX_RINGS + 1 && d->last_tx_ring == TX_RINGS);
		CHECK(nmport_inject(d, "abc", 3) == 0);
		nmport_close(d);
	}
	all_closed();
}

static void
refused(void)
{
	struct nmport_d *d;

	fake_reset();
	d = nmport_prepare("vale0:1");
	fake.open_errno = EACCES;
	CHECK(nmport_register(d) == -1 && errno == EACCES);
	CHECK_STR(messages(), "/dev/netmap: Permission denied\n");
	fake.open_errno = 0;
	fake.ioctl_errno = ENXIO;
	CHECK(nmport_register(d) == -1 && errno == ENXIO && d->fd == -1 && !d->register_done);
	CHECK_STR(messages(), "vale0:1: No such device or address\n");
	CHECK(fake.closes == 1);

	/* Options that were refused, each by its own name and errno, in the order of the list. */
	CHECK(nmport_offset(d, 1, 2, 3, 4) == 0 && nmport_extmem(d, d, 4096) == 0);
	fake.ioctl_errno = EOPNOTSUPP;
	fake.option_status[NETMAP_REQ_OPT_EXTMEM] = ENOMEM;
	CHECK(nmport_register(d) == -1 && errno == EOPNOTSUPP);
	CHECK(fake.options_seen == (1U << NETMAP_REQ_OPT_EXTMEM | 1U << NETMAP_REQ_OPT_OFFSETS));
	CHECK_STR(messages(), "vale0:1: option extmem: Cannot allocate memory\n");
	fake.option_status[NETMAP_REQ_OPT_OFFSETS] = EOPNOTSUPP;
	CHECK(nmport_register(d) == -1 && errno == EOPNOTSUPP);
	CHECK_STR(messages(), "vale0:1: option extmem: Cannot allocate memory\n"
	    "vale0:1: option offsets: Operation not supported\n");
	nmport_undo_prepare(d);
	all_closed();

	/* Mapping fails: the port is closed again. */
	fake_reset();
	fake.mmap_errno = ENOMEM;
	CHECK(nmport_open("netmap:eth0") == NULL && errno == ENOMEM);
	CHECK_STR(messages(), "mmap: Cannot allocate memory\n");
	all_closed();
	kept.allocs_left = 1;
	fake.mmap_errno = 0;
	CHECK(nmport_open("netmap:eth0") == NULL && errno == ENOMEM);
	CHECK_STR(messages(), "eth0: cannot allocate the record of its memory\n");
	kept.allocs_left = -1;
	all_closed();
}

static void
shared_memory(void)
{
	struct nmport_d *a, *b, *c, *d;

	fake_reset();
	a = open_port("netmap:eth0");
	b = open_port("netmap:eth1");
	CHECK(a->mem == b->mem && a->mem->refcount == 2 && fake.mmaps == 1 && a->nifp == b->nifp);
	fake.mem_id = 2;
	c = open_port("netmap:eth2");
	fake.mem_id = 3;
	d = open_port("netmap:eth3");
	CHECK(c->mem != a->mem && d->mem != c->mem && fake.mmaps == 3);
	/* Out of the middle, the end and the start of the list. */
	CHECK(keeper.mem_descs == d->mem && d->mem->next == c->mem && c->mem->prev == d->mem);
	nmport_close(c);
	CHECK(d->mem->next == a->mem && a->mem->prev == d->mem);
	nmport_close(a);
	CHECK(b->mem->refcount == 1 && fake.munmaps == 1 && NETMAP_TXRING(b->nifp, 0)->num_slots == SLOTS);
	nmport_close(b);
	CHECK(d->mem->next == NULL && keeper.mem_descs == d->mem);
	nmport_close(d);
	all_closed();
	CHECK(kept.locks > 0);

	/* By name: the memory of another port. What follows the name in it does not matter. */
	fake_reset();
	fake.mem_id = 6;
	a = nmport_prepare("vale0:1@share=vale0:2/zz");
	CHECK(a != NULL && a->reg.nr_mem_id == 6 && fake.hdr.nr_reqtype == NETMAP_REQ_PORT_INFO_GET);
	CHECK_STR(fake.hdr.nr_name, "vale0:2");
	nmport_undo_prepare(a);
	a = nmport_prepare("vale0:1@6@share:port=netmap:eth0");
	CHECK(a != NULL && a->reg.nr_mem_id == 6);
	nmport_undo_prepare(a);
	CHECK(nmport_prepare("vale0:1@5@share=vale0:2") == NULL && errno == EINVAL);
	CHECK_STR(messages(), "cannot set mem_id to 6, already set to 5\n");
	fake.ioctl_errno = ENXIO;
	CHECK(nmport_prepare("vale0:1@share=netmap:x^") == NULL && errno == ENXIO);
	CHECK_STR(messages(), "cannot get info for 'netmap:x^': No such device or address\n");
	fake.ioctl_errno = 0;
	{
		const char *name = "netmap:abc-3", *at = name;

		CHECK(nmreq_get_mem_id(&at, &keeper) == 6 && at == name + 10);
		at = name = "abc";
		CHECK(nmreq_get_mem_id(&at, &keeper) == -1 && errno == EINVAL && at == name);
		CHECK_STR(messages(), "abc: invalid request, prefix unknown or missing\n");
	}
	all_closed();
}

static void
clones(void)
{
	struct nmport_d *d, *c;

	fake_reset();
	d = open_port("netmap:eth0-1/x");
	CHECK(nmport_offset(d, 0, 8, 0, 0) == 0);
	c = nmport_clone(d);
	CHECK(c != NULL && c->ctx == d->ctx && c->fd == -1 && !c->register_done && !c->mmap_done && c->mem == NULL);
	CHECK_STR(c->hdr.nr_name, "eth0");
	CHECK(c->hdr.nr_options == 0 && c->hdr.nr_body == (uintptr_t)&c->reg && c->clist == NULL);
	CHECK(memcmp(&c->reg, &d->reg, sizeof(c->reg)) == 0 && c->reg.nr_mem_id == 1);
	CHECK(nmport_open_desc(c) == 0 && c->mem == d->mem);
	nmport_close(d);
	nmport_close(c);

	d = nmport_prepare("netmap:eth0");
	CHECK(nmport_extmem(d, d, 4096) == 0);
	CHECK(nmport_clone(d) == NULL && errno == EINVAL);
	CHECK_STR(messages(), "cannot clone unregistered port that is using extmem\n");
	nmport_undo_prepare(d);
	all_closed();
}

static void
own_memory(const char *path)
{
	char *mem = region_alloc(fake_bytes()), spec[256];
	struct nmport_d *d = nmport_prepare("netmap:eth0"), *c;
	FILE *file;

	fake_reset();
	CHECK(nmport_extmem_getinfo(d) == NULL);
	CHECK(nmport_extmem(d, mem, fake_bytes()) == 0);
	CHECK(d->extmem != NULL && d->extmem->nro_usrptr == (uintptr_t)mem);
	CHECK(nmport_extmem_getinfo(d) == &d->extmem->nro_info && d->extmem->nro_info.nr_memsize == fake_bytes());
	CHECK((void *)nmreq_find_option(&d->hdr, NETMAP_REQ_OPT_EXTMEM) == (void *)d->extmem);
	CHECK(nmport_extmem(d, mem, 4096) == -1 && errno == EINVAL);
	CHECK_STR(messages(), "eth0: extmem already in use\n");
	region_fill(mem, TX_RINGS, RX_RINGS, NIFP_AT);
	CHECK(nmport_open_desc(d) == 0 && d->mem->mem == mem && d->mem->is_extmem && fake.mmaps == 0);
	CHECK((char *)d->nifp == mem + NIFP_AT && d->mem->size == fake_bytes());
	/* Registered: a clone is possible, and uses the same memory. */
	c = nmport_clone(d);
	CHECK(c != NULL && c->extmem == NULL && nmport_open_desc(c) == 0 && c->mem == d->mem);
	nmport_close(c);
	nmport_close(d);
	CHECK(fake.munmaps == 0);
	free(mem);
	all_closed();

	/* A file. */
	fake_reset();
	file = fopen(path, "w");
	CHECK(file != NULL && ftruncate(fileno(file), 8192) == 0);
	fclose(file);
	snprintf(spec, sizeof(spec), "netmap:eth0@extmem:file=%s,if-num=1,if_size=2,ring-num=3,ring-size=4,buf-num=5,buf-size=6",
	    path);
	d = nmport_prepare(spec);
	CHECK(d != NULL && d->extmem != NULL && fake.mmaps == 1);
	if (d != NULL && d->extmem != NULL) {
		struct nmreq_pools_info *info = nmport_extmem_getinfo(d);

		CHECK(info->nr_memsize == 8192 && info->nr_if_pool_objtotal == 1 && info->nr_if_pool_objsize == 2);
		CHECK(info->nr_ring_pool_objtotal == 3 && info->nr_ring_pool_objsize == 4);
		CHECK(info->nr_buf_pool_objtotal == 5 && info->nr_buf_pool_objsize == 6);
		*(volatile char *)(uintptr_t)d->extmem->nro_usrptr = 'm';
		CHECK(nmport_extmem_from_file(d, path) == -1 && errno == EINVAL && fake.munmaps == 1);
		CHECK_STR(messages(), "eth0: extmem already in use\n");
		nmport_undo_parse(d);
		CHECK(d->extmem == NULL && d->clist == NULL && fake.munmaps == 2);
		nmport_delete(d);
	}
	snprintf(spec, sizeof(spec), "netmap:eth0@extmem=%s@bogus", path);
	CHECK(nmport_prepare(spec) == NULL && errno == EINVAL && fake.mmaps == 3 && fake.munmaps == 3);
	CHECK_STR(messages(), "unknown option: 'bogus'\n");
	fake.mmap_errno = ENODEV;
	snprintf(spec, sizeof(spec), "netmap:eth0@extmem=%s", path);
	CHECK(nmport_prepare(spec) == NULL && errno == ENODEV);
	snprintf(spec, sizeof(spec), "cannot mmap '%s': No such device\n", path);
	CHECK_STR(messages(), spec);
	CHECK(kept.living == 0 && keeper.mem_descs == NULL);
}

static void
inject(void)
{
	static char packet[SLOTS * BUF_SIZE];
	struct netmap_ring *a, *b;
	struct nmport_d *d;
	size_t i;

	for (i = 0; i < sizeof(packet); i++)
		packet[i] = (char)(i * 31 + i / 256);
	fake_reset();
	d = open_port("netmap:eth0");
	a = NETMAP_TXRING(d->nifp, 0);
	b = NETMAP_TXRING(d->nifp, 1);
	CHECK(nmport_inject(d, packet, 100) == 100 && a->head == 1 && a->cur == 1);
	CHECK(a->slot[0].len == 100 && a->slot[0].flags == 0);
	CHECK(memcmp(NETMAP_BUF(a, a->slot[0].buf_idx), packet, 100) == 0);
	CHECK(nmport_inject(d, packet, BUF_SIZE) == BUF_SIZE && a->cur == 2);
	CHECK(nmport_inject(d, packet, 2 * BUF_SIZE + 1) == 2 * BUF_SIZE + 1 && a->cur == 5);
	CHECK(a->slot[2].flags == NS_MOREFRAG && a->slot[3].flags == NS_MOREFRAG && a->slot[4].flags == 0);
	CHECK(a->slot[3].len == BUF_SIZE && a->slot[4].len == 1);
	CHECK(*NETMAP_BUF(a, a->slot[4].buf_idx) == packet[2 * BUF_SIZE]);
	/* Two slots left: the next ring; then over the end of the first. */
	CHECK(nmport_inject(d, packet, 3 * BUF_SIZE) == 3 * BUF_SIZE && b->cur == 3 && d->cur_tx_ring == 1);
	a->tail = 2;
	CHECK(nmport_inject(d, packet, 5 * BUF_SIZE) == 5 * BUF_SIZE && a->cur == 2 && d->cur_tx_ring == 0);
	CHECK(nmport_inject(d, packet, 5 * BUF_SIZE) == 0 && a->cur == 2 && b->cur == 3 && d->cur_tx_ring == 0);
	nmport_close(d);
	all_closed();
}

int
main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	keep_messages();
	one_port();
	rings_bound();
	refused();
	shared_memory();
	clones();
	own_memory(argv[1]);
	inject();
	return check_result();
}
