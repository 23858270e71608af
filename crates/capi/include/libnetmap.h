/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * libnetmap.h - the C library: ports (nmport_*), requests and names (nmreq_*), contexts (nmctx_*).
 *
 * Functions that return int return 0, or -1 with errno; those that return a pointer return it, or NULL
 * with errno. What failed is also told to the context, which by default prints it on standard error.
 */
#ifndef LIBNETMAP_H_
#define LIBNETMAP_H_

#include <stddef.h>
#include <stdint.h>

#include <net/netmap_user.h>

#if defined(__cplusplus)
extern "C" {
#endif

struct nmctx;
struct nmport_d;
struct nmem_d;
struct nmport_cleanup_d;
struct nmreq_parse_ctx;

/*
 * Ports. One call:    nmport_open                        nmport_close
 * step by step:       nmport_prepare, nmport_open_desc   nmport_undo_open_desc, nmport_undo_prepare
 * or still smaller:   nmport_new, nmport_parse           nmport_undo_parse, nmport_delete
 *                     nmport_register, nmport_mmap       nmport_undo_mmap, nmport_undo_register
 */
struct nmport_d {
	struct nmreq_header hdr;   /* may be changed until the port is registered */
	struct nmreq_register reg; /* so may this; then it says what came of it. All else is to be read only. */
	struct nmem_d *mem;        /* ports with equal mem share their memory */
	struct nmctx *ctx;
	int register_done;
	int mmap_done;
	struct nmreq_opt_extmem *extmem;
	int fd;                    /* for poll() and ioctl() */
	struct netmap_if *nifp;    /* where rings are found */
	/* Bound rings. None: first is last + 1. */
	uint16_t first_tx_ring;
	uint16_t last_tx_ring;
	uint16_t first_rx_ring;
	uint16_t last_rx_ring;
	/* Where nmport_inject() tries first; the program's own, for reception. */
	uint16_t cur_tx_ring;
	uint16_t cur_rx_ring;
	struct nmport_cleanup_d *clist;
};

/* Opens the port of this name. */
struct nmport_d *nmport_open(const char *portspec);
/* Closes it; NULL is allowed. */
void nmport_close(struct nmport_d *d);

/*
 * Puts a packet into the first ring with room for it. Returns its size, or 0 if no ring has room.
 * Nothing is sent before the next NIOCTXSYNC or poll().
 */
int nmport_inject(struct nmport_d *d, const void *buf, size_t size);

struct nmport_d *nmport_new(void);
void nmport_delete(struct nmport_d *d);
/* Reads a name. After a failure the descriptor can only be deleted. */
int nmport_parse(struct nmport_d *d, const char *portspec);
void nmport_undo_parse(struct nmport_d *d);
struct nmport_d *nmport_prepare(const char *portspec);
void nmport_undo_prepare(struct nmport_d *d);
int nmport_register(struct nmport_d *d);
void nmport_undo_register(struct nmport_d *d);
/* Memory that this context has mapped already is not mapped again. */
int nmport_mmap(struct nmport_d *d);
void nmport_undo_mmap(struct nmport_d *d);
int nmport_open_desc(struct nmport_d *d);
void nmport_undo_open_desc(struct nmport_d *d);
/* Another descriptor of the same port, not registered yet. Options are left out. */
struct nmport_d *nmport_clone(struct nmport_d *d);

/* Before the port is registered: the memory to use, from the program or from a file. */
int nmport_extmem(struct nmport_d *d, void *base, size_t size);
int nmport_extmem_from_file(struct nmport_d *d, const char *fname);
/* What is to lie in that memory; NULL if there is none. */
struct nmreq_pools_info *nmport_extmem_getinfo(struct nmport_d *d);

/* Before the port is registered: packets may begin up to maxoff bytes into their buffers. */
int nmport_offset(struct nmport_d *d, uint64_t initial, uint64_t maxoff, uint64_t bits, uint64_t mingap);

/* Allows or refuses an option in names, for the whole process and not thread-safe. "offset" is refused at first. */
void nmport_disable_option(const char *opt);
int nmport_enable_option(const char *opt);

/*
 * Requests and names.
 */
void nmreq_header_init(struct nmreq_header *hdr, uint16_t reqtype, void *body);

/* Each reads its part of a name, and moves the pointer behind it. */
int nmreq_header_decode(const char **ppspec, struct nmreq_header *hdr, struct nmctx *ctx);
int nmreq_register_decode(const char **pmode, struct nmreq_register *reg, struct nmctx *ctx);
/* The memory of another port, given by name; or -1. */
int32_t nmreq_get_mem_id(const char **portname, struct nmctx *ctx);

/*
 * Options of names: "@prefix", "@prefix=value" or "@prefix:key=value,key=value". A parser has a table of
 * its keys; the function gets their values by id.
 */
#define NMREQ_OPT_MAXKEYS 16

struct nmreq_parse_ctx {
	struct nmctx *ctx;
	void *token;                         /* of nmreq_options_decode() */
	const char *keys[NMREQ_OPT_MAXKEYS]; /* NULL: not given. Gone when the function returns. */
};

/* Negative: the option is refused. */
typedef int (*nmreq_opt_parser_cb)(struct nmreq_parse_ctx *);

struct nmreq_opt_key {
	const char *key; /* with '_' where '-' may be written too; NULL ends the table */
	int id;          /* place in nmreq_parse_ctx.keys */
	unsigned int flags;
#define NMREQ_OPTK_ALLOWEMPTY 1U /* may stand without a value */
#define NMREQ_OPTK_MUSTSET    2U /* must be there, in the form with ':' */
#define NMREQ_OPTK_DEFAULT    4U /* is the key of "@prefix=value"; what counts is default_key */
};

struct nmreq_opt_parser {
	const char *prefix;
	nmreq_opt_parser_cb parse;
	int default_key; /* id of the key for "@prefix=value"; -1: none */
	int nr_keys;
	unsigned int flags;
#define NMREQ_OPTF_DISABLED   1U /* refused */
#define NMREQ_OPTF_ALLOWEMPTY 2U /* may stand without values */
	struct nmreq_opt_parser *next;
	struct nmreq_opt_key keys[NMREQ_OPT_MAXKEYS];
} NM_ATTR_ALIGNED_(16);

int nmreq_options_decode(const char *opt, struct nmreq_opt_parser parsers[], void *token, struct nmctx *ctx);

/* The list of options of a request. */
void nmreq_push_option(struct nmreq_header *hdr, struct nmreq_option *opt);
void nmreq_remove_option(struct nmreq_header *hdr, struct nmreq_option *opt);
struct nmreq_option *nmreq_find_option(struct nmreq_header *hdr, uint32_t reqtype);
/* Calls free() for every option. */
void nmreq_free_options(struct nmreq_header *hdr);
const char *nmreq_option_name(uint32_t reqtype);

#define nmreq_foreach_option(hdr_, opt_) \
	for ((opt_) = (struct nmreq_option *)(uintptr_t)(hdr_)->nr_options; (opt_) != NULL; \
	    (opt_) = (struct nmreq_option *)(uintptr_t)(opt_)->nro_next)

/*
 * Contexts: where messages go, where memory comes from, and which memory is mapped.
 */
typedef void (*nmctx_error_cb)(struct nmctx *, const char *);
typedef void *(*nmctx_malloc_cb)(struct nmctx *, size_t);
typedef void (*nmctx_free_cb)(struct nmctx *, void *);
typedef void (*nmctx_lock_cb)(struct nmctx *, int);

struct nmctx {
	int verbose; /* 0: no messages */
	nmctx_error_cb error;
	nmctx_malloc_cb malloc;
	nmctx_free_cb free;
	nmctx_lock_cb lock; /* called with 1 to take the lock, with 0 to give it back; NULL: no lock */
	struct nmem_d *mem_descs;
};

/* Memory that is mapped. */
struct nmem_d {
	uint16_t mem_id;
	int refcount;
	void *mem;
	size_t size;
	int is_extmem;
	struct nmem_d *next;
	struct nmem_d *prev;
};

/* The context of those who name none. */
struct nmctx *nmctx_get(void);
/* Replaces it; returns the one before. */
struct nmctx *nmctx_set_default(struct nmctx *ctx);

void nmctx_ferror(struct nmctx *ctx, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
void *nmctx_malloc(struct nmctx *ctx, size_t size);
void nmctx_free(struct nmctx *ctx, void *mem);
void nmctx_lock(struct nmctx *ctx);
void nmctx_unlock(struct nmctx *ctx);

/* Gives the default context a lock. Done at start, unless LIBNETMAP_NOTHREADSAFE is defined. */
void nmctx_set_threadsafe(void);

#ifndef LIBNETMAP_NOTHREADSAFE
extern int nmctx_threadsafe;
#if defined(__GNUC__)
/* Never called: being there makes the linker take the part of the library that has the lock. */
static void __attribute__((used))
libnetmap_init(void)
{
	nmctx_threadsafe = 1;
}
#endif
#endif

#if defined(__cplusplus)
}
#endif

#endif /* LIBNETMAP_H_ */
