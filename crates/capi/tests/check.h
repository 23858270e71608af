/* What the C tests share: checks that count, and a main that ends with 0 if all held. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures_;

#define CHECK(cond) check_((cond) ? 1 : 0, __FILE__, __LINE__, #cond, "")
/* The same, naming the row of a table. */
#define CHECK_ROW(row, cond) check_((cond) ? 1 : 0, __FILE__, __LINE__, #cond, row)
#define CHECK_STR(got, want) check_str_(got, want, __FILE__, __LINE__, #got)
#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

static inline void
check_(int ok, const char *file, int line, const char *what, const char *row)
{
	if (!ok) {
		printf("%s:%d: false: %s %s\n", file, line, what, row);
		failures_++;
	}
}

static inline void
check_str_(const char *got, const char *want, const char *file, int line, const char *what)
{
	if (strcmp(got, want) != 0) {
		printf("%s:%d: %s is \"%s\", not \"%s\"\n", file, line, what, got, want);
		failures_++;
	}
}

static inline int
check_result(void)
{
	if (failures_ > 0)
		printf("%d checks failed\n", failures_);
	return failures_ > 0;
}

#endif
