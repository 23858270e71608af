/* An interface on a switch, and polling (semantics.md 19, 20; abi.md 9.3, 9.4, 9.9), as a program sees them. In a namespace of
 * their own: the veth pair va and vb. */
#include "doors.h"

static int
attach(int fd, const char *name, uint32_t mode, struct nmreq_vale_attach *body)
{
	memset(body, 0, sizeof(*body));
	body->reg.nr_mode = mode;
	body->reg.nr_tx_slots = 77; /* comes back as it is */
	body->port_index = 99;
	return request(fd, NETMAP_REQ_VALE_ATTACH, name, body, NULL);
}

static int
detach(int fd, const char *name, uint32_t *index)
{
	struct nmreq_vale_detach body;
	int result;

	memset(&body, 0, sizeof(body));
	body.port_index = 99;
	result = request(fd, NETMAP_REQ_VALE_DETACH, name, &body, NULL);
	*index = body.port_index;
	return result;
}

static int
poll_on(int fd, uint16_t type, const char *name, uint32_t mode, uint32_t cpu, uint32_t count)
{
	struct nmreq_vale_polling body;

	memset(&body, 0, sizeof(body));
	body.nr_mode = mode;
	body.nr_first_cpu_id = cpu;
	body.nr_num_polling_cpus = count;
	errno = 0;
	return request(fd, type, name, &body, NULL);
}

static void
an_interface_on_a_switch(void)
{
	struct nmreq_vale_attach body;
	struct nmreq_vale_list list;
	struct port p = open_port("vale0:p"), b = open_port("vb");
	int fd = open("/dev/netmap", O_RDWR);
	uint32_t index;

	CHECK(attach(fd, "vale0:va", NR_REG_NIC_SW, &body) < 0 && errno == EOPNOTSUPP && body.port_index == 99);
	CHECK(attach(fd, "vale0:va", NR_REG_ONE_NIC, &body) < 0 && errno == EINVAL);
	CHECK(attach(fd, "vale0:vb", NR_REG_ALL_NIC, &body) < 0 && errno == EBUSY); /* we have it open */
	CHECK(attach(fd, "vale0:va", NR_REG_ALL_NIC, &body) == 0 && body.port_index == 1);
	CHECK(body.reg.nr_tx_slots == 77 && body.reg.nr_mode == NR_REG_ALL_NIC && body.reg.nr_memsize == 0);
	CHECK(attach(fd, "vale0:va", NR_REG_ALL_NIC, &body) < 0 && errno == EBUSY);
	CHECK(attach(fd, "vale1:va", NR_REG_ALL_NIC, &body) < 0 && errno == EBUSY);
	memset(&list, 0, sizeof(list));
	CHECK(request(fd, NETMAP_REQ_VALE_LIST, "vale0:va", &list, NULL) == 0 && list.nr_port_idx == 1);
	CHECK(try_bind("va", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(try_bind("vale0:va", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(try_bind("va{1", NR_REG_ALL_NIC, 0) == EBUSY);
	exchange(&p, &b);
	exchange(&b, &p);

	/* Polling: modes, processors, and what it is refused for. */
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_DISABLE, "vale0:va", 0, 0, 0) < 0 && errno == EFAULT);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "va", NETMAP_POLLING_MODE_SINGLE_CPU, 0, 1) < 0 &&
	      errno == EINVAL);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:x", NETMAP_POLLING_MODE_SINGLE_CPU, 0, 1) < 0 &&
	      errno == ENXIO);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:p", NETMAP_POLLING_MODE_SINGLE_CPU, 0, 1) < 0 &&
	      errno == EOPNOTSUPP);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", NETMAP_POLLING_MODE_SINGLE_CPU, 0, 0) < 0 &&
	      errno == EINVAL);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", NETMAP_POLLING_MODE_SINGLE_CPU, 0, 2) < 0 &&
	      errno == EINVAL);
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", NETMAP_POLLING_MODE_MULTI_CPU, 1, 1) < 0 &&
	      errno == EINVAL); /* the interface has one ring */
	CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", 3, 0, 1) < 0 && errno == EINVAL);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", NETMAP_POLLING_MODE_MULTI_CPU, 0, 1) == 0);
		CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_ENABLE, "vale0:va", 0, 0, 0) < 0 && errno == EFAULT);
		exchange(&p, &b);
		exchange(&b, &p);
		CHECK(detach(fd, "vale0:va", &index) < 0 && errno == EBUSY && index == 99);
		CHECK(poll_on(fd, NETMAP_REQ_VALE_POLLING_DISABLE, "vale0:va", 0, 0, 0) == 0);
	}
	exchange(&p, &b);
	CHECK(detach(fd, "vale0:p", &index) < 0 && errno == EBUSY);
	CHECK(detach(fd, "vale1:va", &index) < 0 && errno == ENXIO);
	CHECK(detach(fd, "vale0:va", &index) == 0 && index == 1);
	CHECK(try_bind("va", NR_REG_ALL_NIC, 0) == 0);
	close_port(&p);
	close_port(&b);
	CHECK(close(fd) == 0);
}

static int
older(int fd, uint16_t cmd, const char *name, uint32_t flags, uint16_t arg1)
{
	struct nmreq req;

	memset(&req, 0, sizeof(req));
	req.nr_version = NETMAP_API;
	snprintf(req.nr_name, sizeof(req.nr_name), "%s", name);
	req.nr_cmd = cmd;
	req.nr_flags = flags;
	req.nr_arg1 = arg1;
	errno = 0;
	return ioctl(fd, NIOCREGIF, &req);
}

static void
an_interface_on_a_switch_by_older_requests(void)
{
	int fd = open("/dev/netmap", O_RDWR);

	CHECK(older(fd, NETMAP_BDG_ATTACH, "vale0:va", 0, NETMAP_BDG_HOST) < 0 && errno == EOPNOTSUPP);
	CHECK(older(fd, NETMAP_BDG_ATTACH, "vale0:va", 0, 0) == 0 && listed("vale0:va"));
	CHECK(older(fd, NETMAP_BDG_POLLING_OFF, "vale0:va", NR_REG_ALL_NIC, 1) < 0 && errno == EFAULT);
	CHECK(older(fd, NETMAP_BDG_POLLING_ON, "vale0:va", NR_REG_NIC_SW, 1) < 0 && errno == EINVAL);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		CHECK(older(fd, NETMAP_BDG_POLLING_ON, "vale0:va", NR_REG_ALL_NIC, 1) == 0);
		CHECK(older(fd, NETMAP_BDG_DETACH, "vale0:va", 0, 0) < 0 && errno == EBUSY);
		CHECK(older(fd, NETMAP_BDG_POLLING_OFF, "vale0:va", NR_REG_ALL_NIC, 1) == 0);
	}
	CHECK(older(fd, NETMAP_BDG_DETACH, "vale0:va", 0, 0) == 0 && !listed("vale0:va"));
	CHECK(close(fd) == 0);
}

static void
a_persistent_port_on_two_switches(void)
{
	struct nmreq_vale_attach body;
	struct nmreq_vale_newif newif;
	struct port a = open_port("vale0:a"), b = open_port("vale1:b");
	int fd = open("/dev/netmap", O_RDWR);
	uint32_t index;

	memset(&newif, 0, sizeof(newif));
	CHECK(request(fd, NETMAP_REQ_VALE_NEWIF, "v0", &newif, NULL) == 0);
	CHECK(attach(fd, "vale0:v0", 0, &body) == 0 && body.port_index == 1);
	CHECK(attach(fd, "vale1:v0", 0, &body) < 0 && errno == EINVAL); /* now the mode counts */
	CHECK(attach(fd, "vale1:v0", NR_REG_ALL_NIC, &body) == 0 && body.port_index == 1);
	exchange(&a, &b);
	exchange(&b, &a);
	CHECK(try_bind("v0", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(try_bind("vale0:v0", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(try_bind("vale1:v0", NR_REG_ALL_NIC, 0) == EBUSY);
	CHECK(request(fd, NETMAP_REQ_VALE_DELIF, "v0", NULL, NULL) < 0 && errno == EBUSY);
	CHECK(detach(fd, "vale0:v0", &index) < 0 && errno == EBUSY);
	CHECK(detach(fd, "vale1:v0", &index) == 0 && detach(fd, "vale0:v0", &index) == 0);
	CHECK(request(fd, NETMAP_REQ_VALE_DELIF, "v0", NULL, NULL) == 0);
	close_port(&a);
	close_port(&b);
	CHECK(close(fd) == 0);
}

static void
a_monitor_of_an_interface(void)
{
	struct port a = open_port("va"), b = open_port("vb");
	struct port m = open_with("va", NR_MONITOR_TX | NR_MONITOR_RX, 0);
	struct netmap_ring *ring = RX(&m, 0);

	CHECK_STR(m.nifp->ni_name, "va/rt#0");
	exchange(&a, &b);
	CHECK(poll1(m.fd, POLLIN, 5000) == POLLIN && nm_ring_space(ring) == 5);
	CHECK(ring->slot[ring->head].flags & NS_TXMON);
	CHECK(take(&m, 0) == 5);
	exchange(&b, &a);
	CHECK(poll1(m.fd, POLLIN, 5000) == POLLIN && nm_ring_space(ring) == 5);
	CHECK(!(ring->slot[ring->head].flags & NS_TXMON));
	CHECK(take(&m, 5) == 5);
	close_port(&m);
	exchange(&a, &b);
	exchange(&b, &a);
	close_port(&a);
	close_port(&b);
}

static const struct test tests[] = {
	{"an_interface_on_a_switch", an_interface_on_a_switch},
	{"an_interface_on_a_switch_by_older_requests", an_interface_on_a_switch_by_older_requests},
	{"a_persistent_port_on_two_switches", a_persistent_port_on_two_switches},
	{"a_monitor_of_an_interface", a_monitor_of_an_interface},
};

RUN_TESTS(tests)
