/* SPDX-License-Identifier: GPL-2.0-only */

/*
 * The body of api_error, in C because stable Rust can neither define a variadic function nor call
 * one that takes a va_list. Rust exports the public names (see log.rs) and leads here.
 */

/* For syscall(2), which strict C11 hides. */
#define _GNU_SOURCE

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* Longer messages are cut. */
#define LINE_BYTES_MAX 4096

#define LEVEL_WARN 3

typedef void (*log_callback_t)(int level, int err, const char *fmt, va_list ap);

/* The public names, called through the dynamic linker on purpose: where a neighbouring library
 * comes first, its definitions govern our messages too. */
extern int api_msg_get_level(void);
extern void api_error(int level, int err, const char *fmt, ...);

void fsqapi_error_body(int level, int err, const char *fmt, ...);
log_callback_t fsqapi_error_callback_swap(log_callback_t callback);
log_callback_t fsqapi_info_callback_swap(log_callback_t callback);
void fsqapi_log(int level, int err, const char *text);

static _Atomic(log_callback_t) on_error;
static _Atomic(log_callback_t) on_info;

HIDDEN log_callback_t fsqapi_error_callback_swap(log_callback_t callback)
{
	return atomic_exchange(&on_error, callback);
}

HIDDEN log_callback_t fsqapi_info_callback_swap(log_callback_t callback)
{
	return atomic_exchange(&on_info, callback);
}

/* One line in one write, so that the lines of several threads stay whole. */
static void tell(int level, int err, const char *fmt, va_list ap)
{
	static const char letters[] = "?FEWMID";
	char line[LINE_BYTES_MAX];
	struct timespec now;
	size_t len;
	int added;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(line, sizeof(line), "[%c] %lld.%06ld [%ld] ",
		 level > 0 && level < (int)sizeof(letters) - 1 ? letters[level] : letters[0],
		 (long long)now.tv_sec, now.tv_nsec / 1000, (long)syscall(SYS_gettid));
	len = strlen(line);
	added = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	if (added < 0)
		return;
	len = strlen(line);
	if (err < 0) {
		snprintf(line + len, sizeof(line) - len - 1, ": %s", strerror(-err));
		len = strlen(line);
	}
	if (line[len - 1] != '\n')
		line[len++] = '\n';
	/* Nobody is left to hear that standard error is closed. */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}

HIDDEN void fsqapi_error_body(int level, int err, const char *fmt, ...)
{
	const int errno_of_caller = errno;
	log_callback_t callback;
	va_list ap;

	if (!fmt || level > api_msg_get_level())
		return;
	callback = level <= LEVEL_WARN ? on_error : on_info;
	va_start(ap, fmt);
	if (callback)
		callback(level, err, fmt, ap);
	else
		tell(level, err, fmt, ap);
	va_end(ap);
	errno = errno_of_caller;
}

/* How the library itself logs. */
HIDDEN void fsqapi_log(int level, int err, const char *text)
{
	api_error(level, err, "%s", text);
}
