/* SPDX-License-Identifier: GPL-2.0-only */

/*
 * fsq/common.h: limits and small records that FSQ programs share with programs of the TSM API.
 *
 * A neighbouring library installs a header with the same guard. Whichever comes first is taken,
 * so nothing that fsq/fsqapi.h needs is defined only here.
 */

#ifndef COMMON_H
#define COMMON_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Longest strings, bytes without the NUL; the values are those of the TSM API. */
#ifndef DSM_MAX_NODE_LENGTH
#define DSM_MAX_NODE_LENGTH 64
#endif
#ifndef DSM_MAX_VERIFIER_LENGTH
#define DSM_MAX_VERIFIER_LENGTH 64
#endif
#ifndef DSM_MAX_FSNAME_LENGTH
#define DSM_MAX_FSNAME_LENGTH 1024
#endif
#ifndef DSM_MAX_DESCR_LENGTH
#define DSM_MAX_DESCR_LENGTH 255
#endif
#ifndef DSM_MAX_OWNER_LENGTH
#define DSM_MAX_OWNER_LENGTH 64
#endif
#ifndef DSM_MAX_FSTYPE_LENGTH
#define DSM_MAX_FSTYPE_LENGTH 32
#endif
#ifndef DSM_MAX_PLATFORM_LENGTH
#define DSM_MAX_PLATFORM_LENGTH 16
#endif

#define MAX_OPTIONS_LENGTH 64

/* Whether two option names are the same. */
#define OPTNCMP(a, b) (strlen(a) == strlen(b) && strncmp((a), (b), strlen(a)) == 0)

/* Who signs on to a TSM server. */
struct login_t {
	char node[DSM_MAX_NODE_LENGTH + 1];
	char password[DSM_MAX_VERIFIER_LENGTH + 1];
	char owner[DSM_MAX_OWNER_LENGTH + 1];
	char platform[DSM_MAX_PLATFORM_LENGTH + 1];
	char options[MAX_OPTIONS_LENGTH + 1];
	char fsname[DSM_MAX_FSNAME_LENGTH + 1];
	char fstype[DSM_MAX_FSTYPE_LENGTH + 1];
};

/* One line `key value` of a configuration file. */
struct kv {
	char key[MAX_OPTIONS_LENGTH + 1];
	char val[MAX_OPTIONS_LENGTH + 1];
};

/* All lines; `kv` comes from malloc, the caller frees it. */
struct kv_opt {
	int N;
	struct kv *kv;
};

/*
 * Reads a file of `key value` lines; `#` begins a comment. Returns 0, or a negative errno: -EINVAL
 * for a line without a value or with more than one, -EOVERFLOW for a word longer than
 * MAX_OPTIONS_LENGTH. On failure kv_opt is { 0, NULL }.
 */
int parse_conf(const char *filename, struct kv_opt *kv_opt);

/*
 * Read or write `size` bytes, however many calls that takes. Return the bytes done, or a negative
 * errno; fewer than `size` only at the end of the file. A closed connection raises no SIGPIPE.
 */
ssize_t read_size(int fd, void *ptr, size_t size);
ssize_t write_size(int fd, const void *ptr, size_t size);

/* Seconds since the epoch. */
double time_now(void);

#ifdef __cplusplus
}
#endif

#endif
