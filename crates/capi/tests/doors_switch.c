/* Memory, offsets, virtio-net headers, persistent ports and the catalogue of failures (semantics.md 11, 14, 17, 18, 28). */
#include "doors.h"

/* 11 */
static void
s11_the_pools_fit_into_the_memory(void)
{
	struct port a = open_port("vale1:a");
	struct nmreq_pools_info info;

	memset(&info, 0, sizeof(info));
	CHECK(request(a.fd, NETMAP_REQ_POOLS_INFO_GET, "vale1:a", &info, NULL) == 0);
	CHECK(info.nr_memsize == a.reg.nr_memsize && info.nr_mem_id == a.reg.nr_mem_id);
	CHECK(info.nr_if_pool_objtotal > 0 && info.nr_ring_pool_objtotal > 0 && info.nr_buf_pool_objtotal > 2048);
	CHECK((uint64_t)info.nr_if_pool_objtotal * info.nr_if_pool_objsize +
	        (uint64_t)info.nr_ring_pool_objtotal * info.nr_ring_pool_objsize +
	        (uint64_t)info.nr_buf_pool_objtotal * info.nr_buf_pool_objsize <=
	    info.nr_memsize);
	CHECK(info.nr_buf_pool_objsize == RX(&a, 0)->nr_buf_size);
	/* The pools lie where it says. */
	CHECK(NETMAP_BUF(RX(&a, 0), 0) == a.mem + info.nr_buf_pool_offset);
	CHECK((char *)a.nifp >= a.mem + info.nr_if_pool_offset && (char *)RX(&a, 0) >= a.mem + info.nr_ring_pool_offset);
	close_port(&a);
}

/* A frame moves from one port to another of the same region by its index, and is sent from there. */
static void
s11_a_swap_delivers_without_copying(void)
{
	struct port a = open_port("vale1:a"), b = open_port("vale1:b"), c, d = open_port("vale2:d");
	struct netmap_slot *from, *to;
	uint32_t swap, number;

	memset(&c, 0, sizeof(c));
	c.reg.nr_mem_id = b.reg.nr_mem_id;
	CHECK(bind_port(&c, "vale2:c") == 0 && c.reg.nr_mem_id == b.reg.nr_mem_id);
	CHECK(put(&a, 77, 1) == 1 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(b.fd, POLLIN, 5000) == POLLIN);
	from = &RX(&b, 0)->slot[RX(&b, 0)->head];
	to = &TX(&c, 0)->slot[TX(&c, 0)->head];
	swap = from->buf_idx;
	from->buf_idx = to->buf_idx;
	to->buf_idx = swap;
	to->len = from->len;
	from->flags = to->flags = NS_BUF_CHANGED;
	RX(&b, 0)->head = RX(&b, 0)->cur = nm_ring_next(RX(&b, 0), RX(&b, 0)->head);
	TX(&c, 0)->head = TX(&c, 0)->cur = nm_ring_next(TX(&c, 0), TX(&c, 0)->head);
	memcpy(&number, NETMAP_BUF(TX(&c, 0), swap) + 14, 4);
	CHECK(number == 77);
	CHECK(ioctl(b.fd, NIOCRXSYNC, NULL) == 0 && ioctl(c.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(poll1(d.fd, POLLIN, 5000) == POLLIN && take(&d, 77) == 1);
	close_port(&a);
	close_port(&b);
	close_port(&c);
	close_port(&d);
}

/* 14 */
static int
bind_with_offsets(struct port *p, const char *name, uint64_t flags, uint64_t max)
{
	struct nmreq_opt_offsets o;
	int error = 0;

	memset(p, 0, sizeof(*p));
	memset(&o, 0, sizeof(o));
	o.nro_opt.nro_reqtype = NETMAP_REQ_OPT_OFFSETS;
	o.nro_max_offset = max;
	p->reg.nr_mode = NR_REG_ALL_NIC;
	p->reg.nr_flags = flags;
	p->fd = open("/dev/netmap", O_RDWR);
	if (request(p->fd, NETMAP_REQ_REGISTER, name, &p->reg, &o) < 0) {
		error = errno;
		CHECK(o.nro_opt.nro_status == (uint32_t)error && close(p->fd) == 0);
	} else {
		CHECK(o.nro_opt.nro_status == 0 && map_port(p) == 0);
	}
	return error;
}

static void
s14_a_larger_offset_later_is_refused(void)
{
	struct port a, b;

	CHECK(bind_with_offsets(&a, "vale1:p{1", 0, 128) == 0);
	CHECK(bind_with_offsets(&b, "vale1:p{1", 0, 129) == EBUSY);
	CHECK(bind_with_offsets(&b, "vale1:p{1", 0, 128) == 0);
	close_port(&b);
	close_port(&a);
}

static void
s14_not_on_a_zero_copy_monitor(void)
{
	struct port a = open_port("vale1:p{1"), m;

	CHECK(bind_with_offsets(&m, "vale1:p{1", NR_ZCOPY_MON, 128) == EOPNOTSUPP);
	CHECK(bind_with_offsets(&m, "vale1:p{1", NR_MONITOR_TX, 128) == 0);
	close_port(&m);
	close_port(&a);
}

/* 17 */
static struct port
with_header(const char *name, uint32_t len)
{
	struct port p = open_with(name, NR_ACCEPT_VNET_HDR, 64);
	struct nmreq_port_hdr hdr;

	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_hdr_len = len;
	CHECK(request(p.fd, NETMAP_REQ_PORT_HDR_SET, name, &hdr, NULL) == 0);
	return p;
}

static void
send_bytes(struct port *p, const void *bytes, uint16_t len)
{
	struct netmap_ring *ring = TX(p, 0);
	struct netmap_slot *slot = &ring->slot[ring->head];

	memcpy(NETMAP_BUF(ring, slot->buf_idx), bytes, len);
	slot->len = len;
	slot->flags = 0;
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
	CHECK(ioctl(p->fd, NIOCTXSYNC, NULL) == 0);
}

/* The next frame, or NULL; it is released by the next call. */
static const unsigned char *
receive_bytes(struct port *p, uint16_t *len)
{
	struct netmap_ring *ring = RX(p, 0);
	struct netmap_slot *slot;

	if (nm_ring_empty(ring)) {
		CHECK(ioctl(p->fd, NIOCRXSYNC, NULL) == 0);
		if (nm_ring_empty(ring))
			return NULL;
	}
	slot = &ring->slot[ring->head];
	ring->head = ring->cur = nm_ring_next(ring, ring->head);
	*len = slot->len;
	return (const unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
}

static void
s17_headers_are_opaque_or_converted(void)
{
	static const uint32_t lengths[3] = {0, 10, 12};
	unsigned char sent[72 + 12], header[12] = {0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
	uint16_t len;
	size_t i, from, to;

	/* A header that asks for nothing, then a broadcast. */
	for (i = 0; i < 72; i++)
		sent[12 + i] = i < 6 ? 0xff : (unsigned char)i;
	for (from = 0; from < 3; from++)
		for (to = 0; to < 3; to++) {
			struct port a = with_header("vale1:a", lengths[from]), b = with_header("vale1:b", lengths[to]);
			uint32_t sl = lengths[from], dl = lengths[to], same = sl < dl ? sl : dl;
			const unsigned char *got;

			memcpy(sent + 12 - sl, header, sl);
			send_bytes(&a, sent + 12 - sl, (uint16_t)(72 + sl));
			got = receive_bytes(&b, &len);
			CHECK(got != NULL && len == 72 + dl);
			if (got != NULL) {
				/* What both have room for is the sender's, the rest zero. */
				CHECK(memcmp(got, header, same) == 0);
				for (i = same; i < dl; i++)
					CHECK(got[i] == 0);
				CHECK(memcmp(got + dl, sent + 12, 72) == 0);
			}
			CHECK(receive_bytes(&b, &len) == NULL);
			close_port(&a);
			close_port(&b);
		}
}

static uint16_t
sum16(const unsigned char *p, size_t len, uint32_t sum)
{
	for (; len > 1; len -= 2, p += 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	if (len > 0)
		sum += (uint32_t)p[0] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void
put16(unsigned char *p, uint32_t v)
{
	p[0] = (unsigned char)(v >> 8);
	p[1] = (unsigned char)v;
}

static uint32_t
get16(const unsigned char *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

/* The sum of a pseudo header and what it belongs to; 0xffff if its checksum is right. */
static uint16_t
tcp_sum(const unsigned char *frame, size_t len)
{
	return sum16(frame + 34, len - 34, sum16(frame + 26, 8, 6 + (uint32_t)(len - 34)));
}

/* A header of 10 bytes, Ethernet, IPv4, TCP and `payload` bytes. Returns its length. */
static uint16_t
tcp_packet(unsigned char *out, uint16_t payload, unsigned char flags, unsigned char gso)
{
	unsigned char *frame = out + 10;
	uint16_t i;

	memset(out, 0, 64);
	out[0] = flags;
	out[1] = gso;
	out[6] = 34; /* csum_start; csum_offset: */
	out[8] = 16;
	memset(frame, 0xff, 6);
	frame[6] = 2;
	put16(frame + 12, 0x0800);
	frame[14] = 0x45;
	put16(frame + 16, 40u + payload);
	put16(frame + 18, 1000);
	frame[22] = 64;
	frame[23] = 6;
	frame[26] = frame[30] = 10;
	put16(frame + 24, (uint16_t)~sum16(frame + 14, 20, 0));
	put16(frame + 34, 1);
	put16(frame + 36, 2);
	put16(frame + 40, 5000); /* sequence number */
	frame[46] = 0x50;
	frame[47] = 0x19; /* FIN, PSH, ACK */
	for (i = 0; i < payload; i++)
		frame[54 + i] = (unsigned char)(i * 7);
	/* A part of the sum: that of the pseudo header. */
	put16(frame + 50, sum16(frame + 26, 8, 6u + 20 + payload));
	return (uint16_t)(64 + payload);
}

static void
s17_a_checksum_is_filled_in(void)
{
	struct port a = with_header("vale1:a", 10), b = with_header("vale1:b", 0);
	unsigned char packet[2000];
	const unsigned char *got;
	uint16_t len = tcp_packet(packet, 101, 1, 0), got_len = 0;

	send_bytes(&a, packet, len);
	got = receive_bytes(&b, &got_len);
	CHECK(got != NULL && got_len == len - 10);
	if (got != NULL) {
		CHECK(tcp_sum(got, got_len) == 0xffff);
		CHECK(memcmp(got, packet + 10, 50) == 0 && memcmp(got + 52, packet + 62, got_len - 52u) == 0);
	}
	close_port(&a);
	close_port(&b);
}

static void
s17_a_large_packet_is_cut(void)
{
	struct port a = with_header("vale1:a", 10), b = open_port("vale1:b");
	unsigned char packet[2112];
	uint16_t len = tcp_packet(packet, 2000, 1, 1), got_len = 0;
	uint32_t seen = 0, frames = 0;
	const unsigned char *got;

	send_bytes(&a, packet, len);
	while ((got = receive_bytes(&b, &got_len)) != NULL) {
		uint32_t payload = got_len - 54u;

		CHECK(got_len <= 1514 && get16(got + 16) == got_len - 14u && get16(got + 18) == 1000 + frames);
		CHECK(sum16(got + 14, 20, 0) == 0xffff && tcp_sum(got, got_len) == 0xffff);
		CHECK(get16(got + 40) == 5000 + seen);
		CHECK(memcmp(got + 54, packet + 64 + seen, payload) == 0);
		seen += payload;
		/* The last one ends it. */
		CHECK(got[47] == (seen == 2000 ? 0x19 : 0x10));
		frames++;
	}
	CHECK(frames == 2 && seen == 2000);
	close_port(&a);
	close_port(&b);
}

static void
s17_headers_that_are_no_headers(void)
{
	struct port a = with_header("vale1:a", 10), b = open_port("vale1:b");
	unsigned char packet[2000];
	uint16_t len = 0;

	send_bytes(&a, packet, 9); /* shorter than the header */
	len = tcp_packet(packet, 100, 4, 0);
	send_bytes(&a, packet, len); /* an unknown flag */
	len = tcp_packet(packet, 100, 0, 2);
	send_bytes(&a, packet, len); /* an unknown kind of segments */
	len = tcp_packet(packet, 0, 1, 1);
	send_bytes(&a, packet, len); /* nothing to cut */
	CHECK(receive_bytes(&b, &len) == NULL);
	len = tcp_packet(packet, 100, 0, 0);
	send_bytes(&a, packet, len);
	CHECK(receive_bytes(&b, &len) != NULL && len == 154);
	close_port(&a);
	close_port(&b);
}

static void
s17_who_opens_must_accept_the_header(void)
{
	struct port a = with_header("vale1:a", 12);
	struct nmreq_port_hdr hdr;

	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, 0) == EIO);
	CHECK(try_bind("vale1:a", NR_REG_ALL_NIC, NR_ACCEPT_VNET_HDR) == 0);
	memset(&hdr, 0, sizeof(hdr));
	CHECK(request(a.fd, NETMAP_REQ_PORT_HDR_GET, "vale1:a", &hdr, NULL) == 0 && hdr.nr_hdr_len == 12);
	close_port(&a);
}

/* 18 */
static int
simple(uint16_t type, const char *name)
{
	struct nmreq_vale_newif newif;
	struct nmreq_vale_attach attach;
	struct nmreq_vale_detach detach;
	void *body = type == NETMAP_REQ_VALE_NEWIF ? (void *)&newif
	    : type == NETMAP_REQ_VALE_ATTACH     ? (void *)&attach
	    : type == NETMAP_REQ_VALE_DETACH     ? (void *)&detach
	                                         : NULL;
	int fd = open("/dev/netmap", O_RDWR), error;

	memset(&newif, 0, sizeof(newif));
	memset(&attach, 0, sizeof(attach));
	memset(&detach, 0, sizeof(detach));
	attach.reg.nr_mode = NR_REG_ALL_NIC;
	error = request(fd, type, name, body, NULL) < 0 ? errno : 0;
	CHECK(close(fd) == 0);
	return error;
}

static void
s18_a_persistent_port_lives_by_requests(void)
{
	struct port a;

	CHECK(simple(NETMAP_REQ_VALE_NEWIF, "rwtest0") == 0);
	CHECK(simple(NETMAP_REQ_VALE_NEWIF, "rwtest0") == EEXIST);
	a = open_port("rwtest0");
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == EBUSY);
	/* On no switch: taken and dropped, nothing received. */
	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0);
	CHECK(nm_ring_space(TX(&a, 0)) == a.reg.nr_tx_slots - 1 && poll1(a.fd, POLLIN, 0) == 0);
	close_port(&a);
	/* As parent of a pipe. */
	a = open_port("rwtest0{1");
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == EBUSY);
	close_port(&a);
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == 0);
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == ENXIO);
	CHECK(try_bind("rwtest0", NR_REG_ALL_NIC, 0) == ENXIO);
}

static void
s18_both_names_are_one_port(void)
{
	struct port a, b = open_port("vale1:b");

	CHECK(simple(NETMAP_REQ_VALE_NEWIF, "rwtest0") == 0);
	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:rwtest0") == 0);
	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:rwtest0") == EBUSY);
	CHECK(listed("vale1:rwtest0"));
	a = open_with("vale1:rwtest0", NR_EXCLUSIVE, 0);
	CHECK(try_bind("rwtest0", NR_REG_ALL_NIC, 0) == EBUSY && try_bind("vale1:rwtest0", NR_REG_ALL_NIC, 0) == EBUSY);
	exchange(&a, &b);
	close_port(&a);
	a = open_with("rwtest0", NR_EXCLUSIVE, 0);
	CHECK(try_bind("vale1:rwtest0", NR_REG_ALL_NIC, 0) == EBUSY);
	exchange(&b, &a);
	close_port(&a);
	/* A lookup after use works by both, and so does the detach. */
	CHECK(listed("vale1:rwtest0") && simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == EBUSY);
	CHECK(simple(NETMAP_REQ_VALE_DETACH, "vale1:rwtest0") == 0 && !listed("vale1:rwtest0"));
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == 0);
	close_port(&b);
}

static void
s18_a_detach_leaves_who_is_bound(void)
{
	struct port a, b = open_port("vale1:b");

	CHECK(simple(NETMAP_REQ_VALE_NEWIF, "rwtest0") == 0);
	a = open_port("rwtest0");
	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:rwtest0") == EBUSY);
	close_port(&a);
	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:rwtest0") == 0);
	a = open_port("vale1:rwtest0");
	exchange(&a, &b);
	CHECK(simple(NETMAP_REQ_VALE_DETACH, "vale1:rwtest0") == 0);
	/* Still bound, and on no switch. */
	CHECK(put(&a, 0, 5) == 5 && ioctl(a.fd, NIOCTXSYNC, NULL) == 0 && nm_ring_space(TX(&a, 0)) == a.reg.nr_tx_slots - 1);
	CHECK(poll1(b.fd, POLLIN, 0) == 0);
	close_port(&a);
	CHECK(simple(NETMAP_REQ_VALE_DELIF, "rwtest0") == 0);
	close_port(&b);
}

/* 28: those rows that no other test has. */
static void
s28_names_and_modes_that_are_refused(void)
{
	struct port a;

	CHECK(try_bind("vale1-x:a", NR_REG_ALL_NIC, 0) == ENOMEM);
	CHECK(simple(NETMAP_REQ_VALE_DETACH, "vale1-x:a") == ENXIO);
	CHECK(try_bind("vale1:p{1", NR_REG_SW, 0) == EINVAL && try_bind("vale1:p{1", NR_REG_NIC_SW, 0) == EINVAL);
	memset(&a, 0, sizeof(a));
	a.reg.nr_mem_id = 999;
	CHECK(bind_port(&a, "vale1:a") < 0 && errno == EINVAL);
}

static void
s28_syncs_and_maps_of_nothing(void)
{
	int fd = open("/dev/netmap", O_RDWR);
	struct port a = open_port("vale1:a");

	CHECK(ioctl(fd, NIOCTXSYNC, NULL) < 0 && errno == ENXIO && ioctl(fd, NIOCRXSYNC, NULL) < 0 && errno == ENXIO);
	CHECK(poll1(fd, POLLIN | POLLOUT, 0) == POLLERR);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, a.reg.nr_memsize + 4096, PROT_READ, MAP_SHARED, a.fd, 0) == MAP_FAILED && errno == EINVAL);
	close_port(&a);
	CHECK(close(fd) == 0);
}

static void
s28_requests_about_ports(void)
{
	struct port a = open_port("vale1:a");
	struct nmreq_vale_list list;
	struct nmreq_port_hdr hdr;

	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:a") == EBUSY && simple(NETMAP_REQ_VALE_DETACH, "vale1:a") == EBUSY);
	CHECK(simple(NETMAP_REQ_VALE_ATTACH, "vale1:nowhere") == EINVAL);
	CHECK(simple(NETMAP_REQ_VALE_DETACH, "vale1:nowhere") == ENXIO);
	memset(&list, 0, sizeof(list));
	CHECK(request(a.fd, NETMAP_REQ_VALE_LIST, "", &list, NULL) == 0);
	list.nr_port_idx++;
	CHECK(request(a.fd, NETMAP_REQ_VALE_LIST, "", &list, NULL) < 0 && errno == ENOENT);
	memset(&hdr, 0, sizeof(hdr));
	hdr.nr_hdr_len = 11;
	CHECK(request(a.fd, NETMAP_REQ_PORT_HDR_SET, "vale1:a", &hdr, NULL) < 0 && errno == EINVAL);
	close_port(&a);
}

static void
s18_older_requests_make_and_end_one(void)
{
	int fd = open("/dev/netmap", O_RDWR);
	struct nmreq req;

	memset(&req, 0, sizeof(req));
	req.nr_version = NETMAP_API;
	req.nr_cmd = NETMAP_BDG_NEWIF;
	strcpy(req.nr_name, "olde");
	req.nr_tx_slots = 64;
	CHECK(ioctl(fd, NIOCREGIF, &req) == 0 && req.nr_tx_slots == 64 && req.nr_rx_slots == 1024 && req.nr_arg2 > 1);
	CHECK(ioctl(fd, NIOCREGIF, &req) < 0 && errno == EEXIST);
	CHECK(try_bind("netmap:olde", NR_REG_ALL_NIC, 0) == ENXIO && try_bind("olde", NR_REG_ALL_NIC, 0) == 0);
	req.nr_cmd = NETMAP_BDG_DELIF;
	CHECK(ioctl(fd, NIOCREGIF, &req) == 0);
	CHECK(ioctl(fd, NIOCREGIF, &req) < 0 && errno == ENXIO);
	CHECK(try_bind("olde", NR_REG_ALL_NIC, 0) == ENXIO);
	CHECK(close(fd) == 0);
}

static const struct test tests[] = {
	{"s11_the_pools_fit_into_the_memory", s11_the_pools_fit_into_the_memory},
	{"s11_a_swap_delivers_without_copying", s11_a_swap_delivers_without_copying},
	{"s14_a_larger_offset_later_is_refused", s14_a_larger_offset_later_is_refused},
	{"s14_not_on_a_zero_copy_monitor", s14_not_on_a_zero_copy_monitor},
	{"s17_headers_are_opaque_or_converted", s17_headers_are_opaque_or_converted},
	{"s17_a_checksum_is_filled_in", s17_a_checksum_is_filled_in},
	{"s17_a_large_packet_is_cut", s17_a_large_packet_is_cut},
	{"s17_headers_that_are_no_headers", s17_headers_that_are_no_headers},
	{"s17_who_opens_must_accept_the_header", s17_who_opens_must_accept_the_header},
	{"s18_a_persistent_port_lives_by_requests", s18_a_persistent_port_lives_by_requests},
	{"s18_both_names_are_one_port", s18_both_names_are_one_port},
	{"s18_older_requests_make_and_end_one", s18_older_requests_make_and_end_one},
	{"s18_a_detach_leaves_who_is_bound", s18_a_detach_leaves_who_is_bound},
	{"s28_names_and_modes_that_are_refused", s28_names_and_modes_that_are_refused},
	{"s28_syncs_and_maps_of_nothing", s28_syncs_and_maps_of_nothing},
	{"s28_requests_about_ports", s28_requests_about_ports},
};

RUN_TESTS(tests)
