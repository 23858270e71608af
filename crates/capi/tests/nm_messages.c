/* D, RD and ND: what they print, how often, and that ND evaluates nothing. */
#include <stdio.h>
#include <net/netmap_user.h>
#include <unistd.h>

#include "check.h"

/* The lines on standard error so far, which is a file here. */
static char text[4096];

static void
read_back(void)
{
	size_t n;

	fflush(stderr);
	rewind(stderr);
	n = fread(text, 1, sizeof(text) - 1, stderr);
	text[n] = '\0';
	fseek(stderr, 0, SEEK_END); /* between reading and writing */
}

static void
flood(void)
{
	int i;

	for (i = 0; i < 1000; i++)
		RD(3, "flood %d", i);
}

int
main(int argc, char **argv)
{
	char want[64];
	int calls = 0, line, floods = 0;
	const char *at;

	if (argc < 2 || freopen(argv[1], "w+", stderr) == NULL)
		return 2;
	line = __LINE__ + 1;
	D("number %d, %s", 7, "word");
	read_back();
	CHECK(strlen(text) > 11 && text[3] == '.' && text[10] == ' ');
	CHECK(strspn(text, "0123456789.") == 10);
	snprintf(want, sizeof(want), "main [%d] number 7, word\n", line);
	CHECK_STR(text + 11, want);

	D("no argument, 100%%");
	ND("not called: %d", calls++);
	(void)calls;
	read_back();
	CHECK(calls == 0 && strstr(text, "not called") == NULL);
	CHECK(strstr(text, "no argument, 100%\n") != NULL);

	/* Three in a second; a new second may begin once in between. */
	flood();
	read_back();
	for (at = text; (at = strstr(at, "flood")) != NULL; at++)
		floods++;
	CHECK(floods == 3 || floods == 6);
	return check_result();
}
