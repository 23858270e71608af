/* Where nothing serves netmap's device: the default context, and what it prints. argv[1]: file for that. */
#define NETMAP_WITH_LIBS
#include <libnetmap.h>
#include <net/netmap_user.h> /* again, now with the static functions */

#include "check.h"

static char text[2048];

static void
read_back(void)
{
	size_t n;

	fflush(stderr);
	rewind(stderr);
	n = fread(text, 1, sizeof(text) - 1, stderr);
	text[n] = '\0';
	fseek(stderr, 0, SEEK_END);
}

int
main(int argc, char **argv)
{
	if (access(NETMAP_DEVICE_NAME, F_OK) == 0)
		return 77; /* there is one */
	/* The library writes to descriptor 2, the header to the stream. */
	if (argc < 2 || freopen(argv[1], "w+", stderr) == NULL || dup2(fileno(stderr), 2) != 2)
		return 2;
	CHECK(nmport_open("vale0:1") == NULL && errno == ENOENT);
	read_back();
	CHECK_STR(text, "/dev/netmap: No such file or directory\n");

	CHECK(nmport_open("vale0") == NULL && errno == EINVAL);
	read_back();
	CHECK_STR(text, "/dev/netmap: No such file or directory\nvale0: missing ':'\n");

	CHECK(nm_open("netmap:eth0", NULL, 0, NULL) == NULL && errno == ENOENT);
	read_back();
	CHECK(strstr(text, "] cannot open /dev/netmap: No such file or directory netmap:eth0\n") != NULL);
	return check_result();
}
