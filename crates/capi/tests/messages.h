/* A context that keeps its messages, counts its lock, and can run out of memory. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include <libnetmap.h>

#include "check.h"

static struct {
	char text[2048]; /* messages since the last call of messages(), each with a newline */
	int locked, locks;
	long allocs_left; /* negative: no limit */
	long living;
} kept;

static inline void
keep_message(struct nmctx *ctx, const char *message)
{
	size_t n = strlen(kept.text);

	(void)ctx;
	snprintf(kept.text + n, sizeof(kept.text) - n, "%s\n", message);
	errno = 0; /* no matter what this function does to it */
}

static inline void *
keep_malloc(struct nmctx *ctx, size_t size)
{
	void *mem;

	(void)ctx;
	if (kept.allocs_left == 0)
		return NULL;
	if (kept.allocs_left > 0)
		kept.allocs_left--;
	mem = malloc(size);
	memset(mem, 0xa5, size);
	kept.living++;
	return mem;
}

static inline void
keep_free(struct nmctx *ctx, void *mem)
{
	(void)ctx;
	kept.living--;
	free(mem);
}

static inline void
keep_lock(struct nmctx *ctx, int take)
{
	(void)ctx;
	kept.locked += take ? 1 : -1;
	kept.locks += take;
	CHECK(kept.locked == (take ? 1 : 0));
}

static struct nmctx keeper = { 1, keep_message, keep_malloc, keep_free, keep_lock, NULL };

/* The messages since the last call. */
static inline const char *
messages(void)
{
	static char text[sizeof(kept.text)];

	strcpy(text, kept.text);
	kept.text[0] = '\0';
	return text;
}

/* From now on the default context. */
static inline struct nmctx *
keep_messages(void)
{
	kept.allocs_left = -1;
	return nmctx_set_default(&keeper);
}

#endif
