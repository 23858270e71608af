/* NIOCCTRL, its options, and the older requests (abi.md 1, 7, 8, 11), as a program sees them. */
#include "doors.h"

static struct nmreq_header
header(uint16_t type, const char *name, void *body)
{
	struct nmreq_header hdr;

	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_version = NETMAP_API;
	hdr.nr_reqtype = type;
	snprintf(hdr.nr_name, sizeof(hdr.nr_name), "%s", name);
	hdr.nr_body = (uintptr_t)body;
	return hdr;
}

static int
fails(int fd, struct nmreq_header *hdr, int error)
{
	errno = 0;
	return ioctl(fd, NIOCCTRL, hdr) < 0 && errno == error;
}

static void
order_of_checks(void)
{
	int fd = open("/dev/netmap", O_RDWR);
	struct nmreq_register reg;
	struct nmreq_header hdr;

	memset(&reg, 0, sizeof(reg));
	reg.nr_mode = NR_REG_ALL_NIC;
	CHECK(ioctl(fd, NIOCCTRL, NULL) < 0 && errno == EINVAL);
	CHECK(ioctl(fd, NIOCCTRL, (void *)16) < 0 && errno == EFAULT);
	CHECK(ioctl(fd, NIOCREGIF, NULL) < 0 && errno == EINVAL);
	CHECK(ioctl(fd, NIOCREGIF, (void *)16) < 0 && errno == EFAULT);
	CHECK(ioctl(fd, _IOWR('i', 190, struct nmreq_header), &hdr) < 0 && errno == EOPNOTSUPP);
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", &reg);
	hdr.nr_version = 13;
	CHECK(fails(fd, &hdr, EINVAL) && hdr.nr_version == 13);
	hdr.nr_version = 16;
	CHECK(fails(fd, &hdr, EINVAL));
	hdr.nr_version = NETMAP_API;
	hdr.nr_reserved = 1;
	CHECK(fails(fd, &hdr, EINVAL));
	hdr.nr_reserved = 0;
	hdr.nr_body = 0;
	CHECK(fails(fd, &hdr, EINVAL) && hdr.nr_reserved == 0);
	hdr.nr_body = 16;
	CHECK(fails(fd, &hdr, EFAULT) && hdr.nr_body == 16);
	hdr = header(NETMAP_REQ_VALE_DELIF, "x", &reg); /* has no body */
	CHECK(fails(fd, &hdr, EINVAL));
	hdr = header(99, "x", NULL);
	CHECK(fails(fd, &hdr, EINVAL));
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", &reg);
	memset(hdr.nr_name + 7, 'x', sizeof(hdr.nr_name) - 7);
	ioctl(fd, NIOCCTRL, &hdr);
	CHECK(hdr.nr_name[63] == '\0'); /* written back, though it failed */
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", &reg);
	hdr.nr_version = 14;
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == 0 && hdr.nr_version == 14 && hdr.nr_body == (uintptr_t)&reg);
	CHECK(reg.nr_memsize > 0 && reg.nr_tx_slots == 1024);
	CHECK(close(fd) == 0);
	/* On what is no descriptor the kernel answers. */
	CHECK(ioctl(0, NIOCTXSYNC, NULL) < 0 && errno != EINVAL && errno != ENXIO);
	CHECK(ioctl(-1, NIOCTXSYNC, NULL) < 0 && errno == EBADF);
}

static void
option_list(void)
{
	struct port a;
	struct nmreq_option o[3];
	struct nmreq_header hdr;
	struct nmreq_port_info_get info;
	int fd = open("/dev/netmap", O_RDWR);

	memset(&a, 0, sizeof(a));
	memset(o, 0, sizeof(o));
	a.reg.nr_mode = NR_REG_ALL_NIC;
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", &a.reg);
	hdr.nr_options = (uintptr_t)o;
	/* Unknown: the registration is undone. */
	o[0].nro_reqtype = 77;
	CHECK(fails(fd, &hdr, EOPNOTSUPP) && o[0].nro_status == EOPNOTSUPP);
	CHECK(hdr.nr_options == (uintptr_t)o && a.reg.nr_memsize == 0 && !listed("vale1:a"));
	/* What fails before tells first. */
	a.reg.nr_mode = NR_REG_SW;
	o[0].nro_status = 1;
	CHECK(fails(fd, &hdr, EINVAL) && o[0].nro_status == EOPNOTSUPP);
	a.reg.nr_mode = NR_REG_ALL_NIC;
	/* Type 0 is none. */
	o[0].nro_next = (uintptr_t)&o[1];
	CHECK(fails(fd, &hdr, EINVAL) && o[0].nro_status == 0 && o[1].nro_status == EINVAL);
	/* Twice. */
	o[0].nro_reqtype = o[1].nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS;
	CHECK(fails(fd, &hdr, EINVAL) && o[0].nro_status == EINVAL && o[1].nro_status == EINVAL);
	/* A loop of unknown ones, and one through a known one. */
	o[0].nro_reqtype = o[1].nro_reqtype = 77;
	o[0].nro_status = 5;
	o[1].nro_next = (uintptr_t)&o[0];
	CHECK(fails(fd, &hdr, EMSGSIZE) && o[0].nro_status == 5);
	o[1].nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS;
	CHECK(fails(fd, &hdr, EINVAL) && o[1].nro_status == EINVAL);
	/* Too large, and nowhere. */
	o[1].nro_next = 0;
	o[1].nro_size = 4097;
	CHECK(fails(fd, &hdr, EMSGSIZE) && o[1].nro_status == 0);
	o[1].nro_size = 0;
	o[1].nro_next = 16;
	CHECK(fails(fd, &hdr, EFAULT));
	o[1].nro_next = 0;
	/* Other requests succeed, and leave what they do not know. */
	memset(&info, 0, sizeof(info));
	hdr = header(NETMAP_REQ_PORT_INFO_GET, "vale1:a", &info);
	hdr.nr_options = (uintptr_t)o;
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == 0 && info.nr_tx_slots == 1024);
	CHECK(o[0].nro_status == EOPNOTSUPP && o[1].nro_status == EOPNOTSUPP);
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", &a.reg);
	CHECK(ioctl(fd, NIOCCTRL, &hdr) == 0);
	hdr.nr_options = (uintptr_t)o;
	CHECK(fails(fd, &hdr, EBUSY));
	CHECK(close(fd) == 0);
}

/* abi.md 7, step 8: what cannot be written ends the writing; what the request did stays done. */
static void
answers_that_cannot_be_written(void)
{
	long page = sysconf(_SC_PAGESIZE);
	char *mem = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct nmreq_register *reg = (struct nmreq_register *)(void *)mem;
	struct nmreq_option *o = (struct nmreq_option *)(void *)(mem + page);
	struct nmreq_opt_offsets ofs;
	struct nmreq_header hdr;
	int fd = open("/dev/netmap", O_RDWR), fd2 = open("/dev/netmap", O_RDWR);

	CHECK(mem != MAP_FAILED);
	reg->nr_mode = NR_REG_ALL_NIC;
	memset(&ofs, 0, sizeof(ofs));
	ofs.nro_opt.nro_reqtype = NETMAP_REQ_OPT_OFFSETS;
	ofs.nro_opt.nro_status = 7;
	ofs.nro_max_offset = 64;
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", reg);
	hdr.nr_options = (uintptr_t)&ofs;
	CHECK(mprotect(mem, page, PROT_READ) == 0);
	CHECK(fails(fd, &hdr, EFAULT) && ofs.nro_opt.nro_status == 7);
	CHECK(hdr.nr_body == (uintptr_t)reg && hdr.nr_options == (uintptr_t)&ofs && hdr.nr_reserved == 0);
	CHECK(ioctl(fd, NIOCTXSYNC, NULL) == 0 && listed("vale1:a"));
	CHECK(mprotect(mem, page, PROT_READ | PROT_WRITE) == 0);
	CHECK(fails(fd, &hdr, EBUSY) && reg->nr_memsize == 0);
	CHECK(close(fd) == 0);
	/* The body comes first, then the options in their order. */
	o->nro_reqtype = 77;
	o->nro_status = 7;
	o->nro_next = (uintptr_t)&ofs;
	ofs.nro_opt.nro_status = 7;
	CHECK(mprotect(mem + page, page, PROT_READ) == 0);
	hdr = header(NETMAP_REQ_REGISTER, "vale1:a", reg);
	hdr.nr_options = (uintptr_t)o;
	CHECK(fails(fd2, &hdr, EFAULT) && o->nro_status == 7 && ofs.nro_opt.nro_status == 7);
	CHECK(!listed("vale1:a")); /* not served, so undone */
	CHECK(munmap(mem, 2 * page) == 0 && close(fd2) == 0);
}

/* semantics.md 14: the offset of a sender travels along a pipe; what cannot be is refused, with a status. */
static void
s14_offsets_of_a_pipe(void)
{
	struct nmreq_opt_offsets o;
	struct nmreq_header hdr;
	struct port a, b;
	uint32_t i;

	memset(&o, 0, sizeof(o));
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	a.reg.nr_mode = NR_REG_ALL_NIC;
	a.fd = open("/dev/netmap", O_RDWR);
	hdr = header(NETMAP_REQ_REGISTER, "ofs{1", &a.reg);
	hdr.nr_options = (uintptr_t)&o;
	o.nro_opt.nro_reqtype = NETMAP_REQ_OPT_OFFSETS;
	o.nro_max_offset = 4000;
	CHECK(fails(a.fd, &hdr, EINVAL) && o.nro_opt.nro_status == EINVAL);
	o.nro_max_offset = 64;
	o.nro_offset_bits = 4;
	CHECK(fails(a.fd, &hdr, EINVAL) && o.nro_opt.nro_status == EINVAL);
	o.nro_max_offset = 256;
	o.nro_initial_offset = 128;
	o.nro_offset_bits = 0;
	CHECK(ioctl(a.fd, NIOCCTRL, &hdr) == 0 && o.nro_opt.nro_status == 0);
	CHECK(map_port(&a) == 0 && TX(&a, 0)->offset_mask != 0);
	for (i = 0; i < TX(&a, 0)->num_slots; i++)
		CHECK(NETMAP_ROFFSET(TX(&a, 0), &TX(&a, 0)->slot[i]) == 128);
	CHECK(bind_port(&b, "ofs}1") == 0);
	NETMAP_WOFFSET(TX(&a, 0), &TX(&a, 0)->slot[0], 200);
	TX(&a, 0)->slot[0].len = 60;
	TX(&a, 0)->head = TX(&a, 0)->cur = 1;
	CHECK(ioctl(a.fd, NIOCTXSYNC) == 0 && ioctl(b.fd, NIOCRXSYNC) == 0);
	CHECK(nm_ring_space(RX(&b, 0)) == 1 && RX(&b, 0)->slot[0].ptr == 200);
}

static void
older_requests(void)
{
	struct nmreq req, other;
	struct nm_ifreq config;
	int fd = open("/dev/netmap", O_RDWR), fd2 = open("/dev/netmap", O_RDWR);

	memset(&req, 0, sizeof(req));
	strcpy(req.nr_name, "vale1:a");
	req.nr_version = 13;
	CHECK(ioctl(fd, NIOCREGIF, &req) < 0 && errno == EINVAL);
	req.nr_version = 11;
	CHECK(ioctl(fd, NIOCGINFO, &req) < 0 && errno == EINVAL);
	req.nr_version = 99; /* no upper bound */
	req.nr_tx_slots = 64;
	CHECK(ioctl(fd, NIOCGINFO, &req) == 0 && req.nr_memsize > 0 && req.nr_rx_slots == 1024);
	req.nr_tx_slots = 64;
	req.nr_arg2 = 0;
	CHECK(ioctl(fd, NIOCREGIF, &req) == 0 && req.nr_version == 99);
	CHECK(req.nr_tx_slots == 64 && req.nr_tx_rings == 1 && req.nr_arg2 > 1 && req.nr_memsize > 0);
	CHECK(ioctl(fd, NIOCREGIF, &req) < 0 && errno == EBUSY);
	/* Pipes: the number goes into the name. */
	other = req;
	other.nr_flags = NR_REG_PIPE_MASTER;
	other.nr_ringid = 7 | NETMAP_NO_TX_POLL;
	CHECK(ioctl(fd2, NIOCREGIF, &other) == 0 && other.nr_arg2 == req.nr_arg2);
	CHECK(try_bind("vale1:a}7", NR_REG_ALL_NIC, 0) == 0);
	CHECK(try_bind("vale1:a{7", NR_REG_ALL_NIC, NR_EXCLUSIVE) == EBUSY);
	/* Lists. */
	memset(&other, 0, sizeof(other));
	other.nr_version = NETMAP_API;
	other.nr_cmd = NETMAP_BDG_LIST;
	strcpy(other.nr_name, "vale1:a");
	CHECK(ioctl(fd2, NIOCGINFO, &other) == 0 && other.nr_arg2 != 255);
	memset(other.nr_name, 0, sizeof(other.nr_name));
	other.nr_arg1 = other.nr_arg2 = 0;
	CHECK(ioctl(fd2, NIOCGINFO, &other) == 0);
	CHECK_STR(other.nr_name, "vale1:a");
	do {
		memset(other.nr_name, 0, sizeof(other.nr_name));
		other.nr_arg2++;
	} while (ioctl(fd2, NIOCGINFO, &other) == 0);
	CHECK(errno == ENOENT);
	/* What nobody serves. */
	other.nr_cmd = NETMAP_PT_HOST_CREATE;
	CHECK(ioctl(fd2, NIOCREGIF, &other) < 0 && errno == ENOMEM);
	other.nr_cmd = 77;
	CHECK(ioctl(fd2, NIOCREGIF, &other) < 0 && errno == EINVAL);
	memset(&config, 0, sizeof(config));
	CHECK(ioctl(fd2, NIOCCONFIG, &config) < 0 && errno == EINVAL);
	CHECK(close(fd) == 0 && close(fd2) == 0);
}

/* One older request on a descriptor of its own, which lives on in `*fd` if that is given. */
static int
older(unsigned long request, struct nmreq *req, int *fd)
{
	int own = open("/dev/netmap", O_RDWR), done, error;

	req->nr_version = 11 + 3;
	done = ioctl(own, request, req);
	error = errno;
	if (fd != NULL && done == 0)
		*fd = own;
	else
		CHECK(close(own) == 0);
	return done == 0 ? 0 : error;
}

static struct nmreq
older_named(const char *name, uint32_t flags, uint16_t ringid)
{
	struct nmreq req;

	memset(&req, 0, sizeof(req));
	strncpy(req.nr_name, name, sizeof(req.nr_name));
	req.nr_flags = flags;
	req.nr_ringid = ringid;
	return req;
}

static void
older_modes_and_commands(void)
{
	struct nmreq req;
	int fd;

	/* Without a mode, bits of the number are the mode. */
	req = older_named("vale1:m", 0, NETMAP_HW_RING);
	CHECK(older(NIOCREGIF, &req, NULL) == 0 && req.nr_tx_rings == 1);
	req = older_named("vale1:m", 0, NETMAP_HW_RING | 1);
	CHECK(older(NIOCREGIF, &req, NULL) == EINVAL);
	req = older_named("vale1:m", 0, NETMAP_SW_RING);
	CHECK(older(NIOCREGIF, &req, NULL) == EINVAL);
	/* With one, they are not. */
	req = older_named("vale1:m", NR_REG_ALL_NIC, NETMAP_HW_RING | 1);
	CHECK(older(NIOCREGIF, &req, NULL) == 0);
	req = older_named("vale1:m", 12, 0);
	CHECK(older(NIOCREGIF, &req, NULL) == EINVAL);
	/* Extra buffers, and a name that fills its field: it is cut. */
	req = older_named("vale1:0123456789", 0, 0);
	req.nr_arg3 = 8;
	CHECK(older(NIOCREGIF, &req, &fd) == 0 && req.nr_arg3 == 8);
	CHECK(listed("vale1:012345678") && !listed("vale1:0123456789"));
	/* Headers: the port is asked, by whomever. */
	req = older_named("vale1:012345678", 0, 0);
	req.nr_cmd = NETMAP_BDG_VNET_HDR;
	req.nr_arg1 = 12;
	CHECK(older(NIOCREGIF, &req, NULL) == 0);
	req.nr_arg1 = 0;
	req.nr_cmd = NETMAP_VNET_HDR_GET;
	CHECK(older(NIOCREGIF, &req, NULL) == 0 && req.nr_arg1 == 12);
	req.nr_cmd = NETMAP_BDG_VNET_HDR;
	req.nr_arg1 = 5;
	CHECK(older(NIOCREGIF, &req, NULL) == EINVAL && req.nr_arg1 == 5);
	CHECK(close(fd) == 0);
	/* No name: the memory. */
	req = older_named("", 0, 0);
	CHECK(older(NIOCGINFO, &req, NULL) == 0 && req.nr_memsize > 0 && req.nr_arg2 == 1);
	/* What fails changes nothing. */
	req = older_named("vale1:m", 0, NETMAP_SW_RING);
	req.nr_tx_slots = 64;
	req.nr_memsize = 7;
	CHECK(older(NIOCREGIF, &req, NULL) == EINVAL && req.nr_tx_slots == 64 && req.nr_memsize == 7);
}

static const struct test tests[] = {
	{"order_of_checks", order_of_checks},
	{"option_list", option_list},
	{"answers_that_cannot_be_written", answers_that_cannot_be_written},
	{"s14_offsets_of_a_pipe", s14_offsets_of_a_pipe},
	{"older_requests", older_requests},
	{"older_modes_and_commands", older_modes_and_commands},
};

RUN_TESTS(tests)
