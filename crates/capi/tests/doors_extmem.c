/* Memory that the program brings itself (abi.md 9.12, semantics.md 13). */
#include "doors.h"

#define MEM_BYTES (12 << 20)

static struct nmreq_opt_extmem
extmem_option(void *mem, uint64_t bytes)
{
	struct nmreq_opt_extmem o;

	memset(&o, 0, sizeof(o));
	o.nro_opt.nro_reqtype = NETMAP_REQ_OPT_EXTMEM;
	o.nro_opt.nro_status = 99;
	o.nro_usrptr = (uintptr_t)mem;
	o.nro_info.nr_memsize = bytes;
	o.nro_info.nr_mem_id = 7;
	return o;
}

/* Room that nobody has used. */
static char *
fresh(size_t bytes, int flags)
{
	char *mem = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);

	CHECK(mem != MAP_FAILED);
	return mem;
}

/* Binds in memory of the program, and sees the port through that. The errno; 0 for success. */
static int
bind_in(struct port *p, const char *name, struct nmreq_opt_extmem *o)
{
	int error;

	p->fd = open("/dev/netmap", O_RDWR);
	if (p->reg.nr_mode == 0)
		p->reg.nr_mode = NR_REG_ALL_NIC;
	error = request(p->fd, NETMAP_REQ_REGISTER, name, &p->reg, o) < 0 ? errno : 0;
	if (error) {
		close(p->fd);
		return error;
	}
	p->mem = (char *)(uintptr_t)o->nro_usrptr;
	p->nifp = NETMAP_IF(p->mem, p->reg.nr_offset);
	return 0;
}

static struct port
open_in(const char *name, void *mem, uint64_t bytes)
{
	struct nmreq_opt_extmem o = extmem_option(mem, bytes);
	struct port p;

	memset(&p, 0, sizeof(p));
	CHECK(bind_in(&p, name, &o) == 0 && o.nro_opt.nro_status == 0);
	return p;
}

static struct nmreq_pools_info
pools(const char *name)
{
	struct nmreq_pools_info info;
	int fd = open("/dev/netmap", O_RDWR);

	memset(&info, 0, sizeof(info));
	CHECK(request(fd, NETMAP_REQ_POOLS_INFO_GET, name, &info, NULL) == 0);
	close(fd);
	return info;
}

/* Writes a mark into the last bytes of a range, where no ring has buffers yet. */
static void
mark(char *mem, size_t bytes, const char *text)
{
	snprintf(mem + bytes - 64, 64, "%s", text);
}

#define MARKED(mem, bytes, text) (strcmp((mem) + (bytes) - 64, text) == 0)

static void
extmem_is_the_region(void)
{
	char *mem = fresh(MEM_BYTES, MAP_PRIVATE), *map;
	struct nmreq_opt_extmem o = extmem_option(mem, MEM_BYTES);
	struct nmreq_pools_info info;
	struct port a, b = open_port("vale1:b");

	memset(&a, 0, sizeof(a));
	memset(mem, 0xee, 1 << 20); /* what was there is no trouble */
	mark(mem, MEM_BYTES, "here before");
	a.reg.nr_mem_id = 4711; /* not looked at */
	CHECK(bind_in(&a, "vale1:a", &o) == 0);
	CHECK(a.reg.nr_memsize == MEM_BYTES && a.reg.nr_mem_id > 1 && a.reg.nr_mem_id != b.reg.nr_mem_id);
	CHECK_STR(a.nifp->ni_name, "vale1:a");
	CHECK(a.nifp->ni_flags & NI_PRIV_MEM);
	exchange(&a, &b);
	exchange(&b, &a);
	CHECK(MARKED(mem, MEM_BYTES, "here before"));
	/* Zeros became what they stand for; the rest is as it was. */
	CHECK(o.nro_usrptr == (uintptr_t)mem && o.nro_info.nr_memsize == MEM_BYTES && o.nro_info.nr_mem_id == 7);
	CHECK(o.nro_info.nr_if_pool_objtotal == 2 && o.nro_info.nr_if_pool_objsize == 1024);
	CHECK(o.nro_info.nr_ring_pool_objtotal == 4 && o.nro_info.nr_ring_pool_objsize == 20480);
	CHECK(o.nro_info.nr_buf_pool_objtotal == 4098 && o.nro_info.nr_buf_pool_offset == 0);
	info = pools("vale1:a");
	CHECK(info.nr_memsize == MEM_BYTES && info.nr_mem_id == a.reg.nr_mem_id);
	CHECK(info.nr_if_pool_offset == 0 && info.nr_ring_pool_offset == 4096 && info.nr_buf_pool_offset == 4096 + 81920);
	CHECK(info.nr_buf_pool_objtotal == (MEM_BYTES - 4096 - 81920) / info.nr_buf_pool_objsize);
	/* The descriptor can be mapped too, and it is the same memory. */
	map = (char *)mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
	CHECK(map != MAP_FAILED && MARKED(map, MEM_BYTES, "here before"));
	mark(map, MEM_BYTES, "seen in both");
	CHECK(MARKED(mem, MEM_BYTES, "seen in both"));
	CHECK(munmap(map, MEM_BYTES) == 0);
	/* Only the descriptor keeps it bound, not the memory. What the memory held stays. */
	CHECK(close(a.fd) == 0 && !listed("vale1:a"));
	CHECK(MARKED(mem, MEM_BYTES, "seen in both"));
	a = open_in("vale1:a", mem, MEM_BYTES);
	exchange(&a, &b);
	CHECK(MARKED(mem, MEM_BYTES, "seen in both") && close(a.fd) == 0);
	CHECK(munmap(mem, MEM_BYTES) == 0);
	close_port(&b);
}

/* All kinds of memory that a program may come by. */
static void
extmem_of_any_kind(void)
{
	struct port a, b = open_port("vale1:b");
	char *mem, *parts;
	void *heap = NULL;
	int round;

	CHECK(posix_memalign(&heap, 4096, MEM_BYTES) == 0);
	parts = fresh(MEM_BYTES, MAP_PRIVATE);
	CHECK(mmap(parts + (1 << 20), 1 << 20, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED | MAP_FIXED, -1, 0) !=
	    MAP_FAILED);
	for (round = 0; round < 4; round++) {
		switch (round) {
		case 0:
			mem = fresh(MEM_BYTES, MAP_SHARED);
			break;
		case 1:
			mem = (char *)heap;
			break;
		case 2:
			mem = parts;
			break;
		default:
			mem = fresh(MEM_BYTES + 4096, MAP_PRIVATE) + 4096;
		}
		mark(mem, MEM_BYTES, "kept");
		a = open_in("vale1:a", mem, MEM_BYTES);
		exchange(&a, &b);
		exchange(&b, &a);
		CHECK(MARKED(mem, MEM_BYTES, "kept") && close(a.fd) == 0);
	}
	free(heap);
	close_port(&b);
}

/* The errno of an attempt; nothing stays bound. */
static int
refused(void *mem, uint64_t bytes)
{
	struct nmreq_opt_extmem o = extmem_option(mem, bytes);
	struct port p;

	memset(&p, 0, sizeof(p));
	if (bind_in(&p, "vale1:a", &o) == 0) {
		close(p.fd);
		return 0;
	}
	CHECK(o.nro_info.nr_if_pool_objtotal == 0 && o.nro_usrptr == (uintptr_t)mem);
	return (int)o.nro_opt.nro_status;
}

static void
extmem_errors(void)
{
	char *mem = fresh(MEM_BYTES, MAP_PRIVATE), *hole = fresh(MEM_BYTES, MAP_PRIVATE), stack[8192];
	struct nmreq_opt_extmem o = extmem_option(mem, MEM_BYTES);
	struct port p = open_port("vale1:b");
	uintptr_t on_stack = ((uintptr_t)stack + 4095) & ~(uintptr_t)4095;

	mark(mem, MEM_BYTES, "mine");
	CHECK(refused(mem, 0) == ENOMEM);
	CHECK(refused(mem, 8 << 20) == ENOMEM); /* 4098 buffers do not fit */
	CHECK(refused((char *)16, MEM_BYTES) == EFAULT && refused(NULL, MEM_BYTES) == EFAULT);
	CHECK(refused(mem + 8, MEM_BYTES - 4096) == EFAULT);
	CHECK(refused(mem, (uint64_t)1 << 50) == EFAULT && refused(mem, UINT64_MAX) == EFAULT);
	CHECK(refused((void *)on_stack, 4096) == EFAULT);
	CHECK(munmap(hole + (1 << 20), 4096) == 0 && refused(hole, MEM_BYTES) == EFAULT);
	CHECK(mprotect(mem + (1 << 20), 4096, PROT_READ) == 0 && refused(mem, MEM_BYTES) == EFAULT);
	CHECK(mprotect(mem + (1 << 20), 4096, PROT_READ | PROT_WRITE) == 0);
	/* Bound already: that first. */
	CHECK(request(p.fd, NETMAP_REQ_REGISTER, "vale1:a", &p.reg, &o) < 0 && errno == EBUSY);
	CHECK(o.nro_opt.nro_status == EOPNOTSUPP);
	close_port(&p);
	/* What fails later leaves the memory as it was, and the descriptor free. */
	memset(&p, 0, sizeof(p));
	p.reg.nr_mode = NR_REG_SW;
	o = extmem_option(mem, MEM_BYTES);
	CHECK(bind_in(&p, "vale1:a", &o) == EINVAL && o.nro_opt.nro_status == 0);
	p.reg.nr_mode = NR_REG_ALL_NIC;
	CHECK(bind_in(&p, "netmap-nowhere", &o) == ENXIO);
	CHECK(MARKED(mem, MEM_BYTES, "mine"));
	CHECK(bind_in(&p, "vale1:a", &o) == 0 && close(p.fd) == 0);
}

/* Sizes and numbers are taken as given; what is too small shows when it is used. */
static void
extmem_sizes_as_given(void)
{
	char *mem = fresh(MEM_BYTES, MAP_PRIVATE);
	struct nmreq_opt_extmem o = extmem_option(mem, 1 << 20);
	struct nmreq_pools_info info;
	struct port p;

	memset(&p, 0, sizeof(p));
	o.nro_info.nr_if_pool_objtotal = 5;
	o.nro_info.nr_if_pool_objsize = 1000;
	o.nro_info.nr_ring_pool_objtotal = 3;
	o.nro_info.nr_ring_pool_objsize = 256 + 64 * 16;
	o.nro_info.nr_buf_pool_objtotal = 200;
	o.nro_info.nr_buf_pool_objsize = 1536;
	p.reg.nr_tx_slots = p.reg.nr_rx_slots = 65;
	CHECK(bind_in(&p, "vale1:a", &o) == ENOMEM && o.nro_opt.nro_status == 0);
	p.reg.nr_tx_slots = p.reg.nr_rx_slots = 64;
	CHECK(bind_in(&p, "vale1:a", &o) == 0);
	info = pools("vale1:a");
	CHECK(info.nr_if_pool_objtotal == 5 && info.nr_if_pool_objsize == 1000);
	CHECK(info.nr_ring_pool_offset == 8192 && info.nr_ring_pool_objtotal == 3 && info.nr_ring_pool_objsize == 1280);
	CHECK(info.nr_buf_pool_offset == 12288 && info.nr_buf_pool_objsize == 1536);
	CHECK(info.nr_buf_pool_objtotal == ((1 << 20) - 12288) / 1536);
	CHECK(TX(&p, 0)->nr_buf_size == 1536 && TX(&p, 0)->num_slots == 64);
	CHECK(close(p.fd) == 0);
	/* Too few buffers for the rings. */
	o.nro_info.nr_memsize = 12288 + 100 * 1536;
	o.nro_info.nr_buf_pool_objtotal = 90;
	CHECK(bind_in(&p, "vale1:a", &o) == ENOMEM);
}

static char *shared_mem;
static uint16_t shared_id;

static void
child_joins(void *arg)
{
	struct nmreq_opt_extmem o = extmem_option(shared_mem, MEM_BYTES);
	struct port *b = (struct port *)arg, c;

	memset(&c, 0, sizeof(c));
	o.nro_info.nr_buf_pool_objsize = 17; /* not looked at */
	CHECK(bind_in(&c, "vale1:c", &o) == 0 && c.reg.nr_mem_id == shared_id);
	exchange(&c, b);
	CHECK(MARKED(shared_mem, MEM_BYTES, "from the parent"));
	mark(shared_mem, MEM_BYTES, "from the child");
	CHECK(close(c.fd) == 0);
}

/* Two descriptors with the same pages have one region: in one process, and in others. */
static void
extmem_is_shared(void)
{
	int flags[] = {MAP_PRIVATE, MAP_SHARED};
	size_t i;

	for (i = 0; i < ROWS(flags); i++) {
		struct nmreq_opt_extmem o;
		struct port a, b, other = open_port("vale1:x");
		uint32_t mine, his;

		shared_mem = fresh(MEM_BYTES, flags[i]);
		a = open_in("vale1:a", shared_mem, MEM_BYTES);
		shared_id = a.reg.nr_mem_id;
		memset(&b, 0, sizeof(b));
		o = extmem_option(shared_mem, MEM_BYTES);
		o.nro_info.nr_ring_pool_objsize = 1; /* not looked at */
		CHECK(bind_in(&b, "vale1:b", &o) == 0 && b.reg.nr_mem_id == shared_id);
		CHECK(b.reg.nr_offset != a.reg.nr_offset && o.nro_info.nr_ring_pool_objsize == 1);
		/* Buffers go from one to the other without a copy. */
		exchange(&other, &a);
		mine = TX(&b, 0)->slot[TX(&b, 0)->head].buf_idx;
		his = RX(&a, 0)->slot[0].buf_idx;
		CHECK(mine != his);
		TX(&b, 0)->slot[TX(&b, 0)->head].buf_idx = his;
		RX(&a, 0)->slot[0].buf_idx = mine;
		CHECK(NETMAP_BUF(TX(&b, 0), his) == NETMAP_BUF(RX(&a, 0), his));
		/* Other pages, another region: a part of them is not the same. */
		CHECK(close(b.fd) == 0);
		b = open_in("vale1:b", shared_mem + 4096, MEM_BYTES - 4096);
		CHECK(b.reg.nr_mem_id != shared_id && close(b.fd) == 0);
		CHECK(close(a.fd) == 0);
		close_port(&other);
		munmap(shared_mem, MEM_BYTES);
	}
	/* A child that was forked while the memory was the region, and one that was forked before. */
	for (i = 0; i < 2; i++) {
		struct port a, b = open_port("vale1:b");
		int go[2], status;
		pid_t pid = 1;

		shared_mem = fresh(MEM_BYTES, MAP_SHARED);
		CHECK(pipe(go) == 0);
		if (i == 1 && (pid = fork()) == 0) {
			CHECK(read(go[0], &shared_id, sizeof(shared_id)) == sizeof(shared_id));
			child_joins(&b);
			fflush(stdout);
			_exit(check_result());
		}
		a = open_in("vale1:a", shared_mem, MEM_BYTES);
		shared_id = a.reg.nr_mem_id;
		mark(shared_mem, MEM_BYTES, "from the parent");
		if (i == 0) {
			in_child(child_joins, &b);
		} else {
			CHECK(write(go[1], &shared_id, sizeof(shared_id)) == sizeof(shared_id));
			CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		}
		CHECK(MARKED(shared_mem, MEM_BYTES, "from the child"));
		CHECK(close(a.fd) == 0);
		close_port(&b);
	}
}

static char path[] = "/tmp/ringway-extmem-XXXXXX";

static void
child_maps_the_file(void *arg)
{
	int fd = open(path, O_RDWR);

	shared_mem = (char *)mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(shared_mem != MAP_FAILED && close(fd) == 0);
	child_joins(arg);
}

/* Another process joins by mapping the same file. What is in the file at first is seen; the file itself keeps it. */
static void
extmem_of_a_file(void)
{
	struct port a, b = open_port("vale1:b");
	char text[64] = "";
	int fd = mkstemp(path);
	char *mem;

	CHECK(ftruncate(fd, MEM_BYTES) == 0);
	CHECK(pwrite(fd, "in the file", 12, MEM_BYTES - 64) == 12);
	mem = (char *)mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	a = open_in("vale1:a", mem, MEM_BYTES);
	CHECK(MARKED(mem, MEM_BYTES, "in the file"));
	exchange(&a, &b);
	shared_id = a.reg.nr_mem_id;
	mark(mem, MEM_BYTES, "from the parent");
	in_child(child_maps_the_file, &b);
	CHECK(MARKED(mem, MEM_BYTES, "from the child"));
	CHECK(pread(fd, text, sizeof(text), MEM_BYTES - 64) == 64);
	CHECK_STR(text, "in the file");
	/* Beyond the end of the file there is nothing. */
	CHECK(ftruncate(fd, MEM_BYTES / 2) == 0);
	{
		char *half = (char *)mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		CHECK(refused(half, MEM_BYTES) == EFAULT);
	}
	/* Nobody can take the file's pages away from the region. */
	CHECK(ftruncate(fd, 0) == 0);
	exchange(&a, &b);
	CHECK(close(a.fd) == 0 && close(fd) == 0 && unlink(path) == 0);
	close_port(&b);
}

/* The region lives as long as somebody uses it, and its id no longer. */
static void
extmem_lives_until_the_last_user(void)
{
	char *mem = fresh(MEM_BYTES, MAP_PRIVATE);
	struct port a = open_in("vale1:a", mem, MEM_BYTES), b = open_in("vale1:b", mem, MEM_BYTES), c;
	uint16_t id = a.reg.nr_mem_id;

	exchange(&a, &b);
	CHECK(close(a.fd) == 0);
	c = open_in("vale1:c", mem, MEM_BYTES);
	CHECK(c.reg.nr_mem_id == id);
	exchange(&c, &b);
	CHECK(close(b.fd) == 0 && close(c.fd) == 0);
	memset(&a, 0, sizeof(a));
	a.reg.nr_mem_id = id;
	CHECK(bind_port(&a, "vale1:a") < 0 && errno == EINVAL);
	a = open_in("vale1:a", mem, MEM_BYTES);
	CHECK(a.reg.nr_mem_id == id && close(a.fd) == 0);
}

/* A null port needs no id then; pipes lie in their parent's memory; a port that is there already keeps what it has. */
static void
extmem_of_other_ports(void)
{
	char *mem = fresh(MEM_BYTES, MAP_PRIVATE), *other = fresh(MEM_BYTES, MAP_PRIVATE);
	struct nmreq_opt_extmem o = extmem_option(mem, MEM_BYTES);
	struct port null, a, b;

	memset(&null, 0, sizeof(null));
	null.reg.nr_mode = NR_REG_NULL;
	null.reg.nr_extra_bufs = 16;
	o.nro_info.nr_if_pool_objtotal = 8;
	CHECK(bind_in(&null, "any", &o) == 0 && null.reg.nr_extra_bufs == 16);
	CHECK(null.nifp->ni_bufs_head > 1);
	a = open_in("p{1", mem, MEM_BYTES);
	b = open_in("p}1", mem, MEM_BYTES);
	CHECK(a.reg.nr_mem_id == null.reg.nr_mem_id && b.reg.nr_mem_id == a.reg.nr_mem_id);
	exchange(&a, &b);
	CHECK(close(b.fd) == 0);
	mark(other, MEM_BYTES, "not touched");
	o = extmem_option(other, MEM_BYTES);
	memset(&b, 0, sizeof(b));
	CHECK(bind_in(&b, "p}1", &o) == 0 && b.reg.nr_mem_id == a.reg.nr_mem_id);
	CHECK(MARKED(other, MEM_BYTES, "not touched") && other[0] == 0);
	CHECK(close(a.fd) == 0 && close(b.fd) == 0 && close(null.fd) == 0);
}

static const struct test tests[] = {
	{"extmem_is_the_region", extmem_is_the_region},
	{"extmem_of_any_kind", extmem_of_any_kind},
	{"extmem_errors", extmem_errors},
	{"extmem_sizes_as_given", extmem_sizes_as_given},
	{"extmem_is_shared", extmem_is_shared},
	{"extmem_of_a_file", extmem_of_a_file},
	{"extmem_lives_until_the_last_user", extmem_lives_until_the_last_user},
	{"extmem_of_other_ports", extmem_of_other_ports},
};

RUN_TESTS(tests)
