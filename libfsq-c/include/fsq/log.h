/* SPDX-License-Identifier: GPL-2.0-only */

/*
 * fsq/log.h: what libfsqapi tells about its work, on standard error or to a callback.
 *
 * A neighbouring library installs a header with the same guard and defines some of these
 * functions. In a shared link its definitions are used, by libfsqapi as well.
 */

#ifndef LOG_H
#define LOG_H

#include <stdarg.h>

#ifdef __cplusplus
extern "C" {
#endif

enum api_message_level {
	API_MSG_OFF = 0,
	API_MSG_FATAL = 1,
	API_MSG_ERROR = 2,
	API_MSG_WARN = 3,
	API_MSG_NORMAL = 4,
	API_MSG_INFO = 5,
	API_MSG_DEBUG = 6
};

/* Gets a message instead of standard error. `err` is a negative errno, or 0. */
typedef void (*api_log_callback_t)(enum api_message_level level, int err, const char *fmt,
				   va_list ap);

/*
 * Tells a message if `level` is at most the level that is set [API_MSG_NORMAL]. On standard error
 * the letter of the level, time and thread are put in front of it, and the words for a negative
 * errno `err` are added.
 */
void api_error(enum api_message_level level, int err, const char *fmt, ...)
#ifdef __GNUC__
	__attribute__((format(printf, 3, 4)))
#endif
	;

int api_msg_get_level(void);
void api_msg_set_level(int level);

/*
 * Set who gets the messages, API_MSG_WARN and graver the first, all others the second. NULL is
 * standard error again. Return what was set before, NULL for standard error.
 */
api_log_callback_t api_error_callback_set(api_log_callback_t callback);
api_log_callback_t api_info_callback_set(api_log_callback_t callback);

/* The format must be a string literal. The first takes a negative errno, or 0, before it. */
#define LOG_ERROR(rc, ...) FSQ_LOG_(API_MSG_ERROR, (rc), __VA_ARGS__, "")
#define LOG_WARN(...) FSQ_LOG_(API_MSG_WARN, 0, __VA_ARGS__, "")
#define LOG_MESSAGE(...) FSQ_LOG_(API_MSG_NORMAL, 0, __VA_ARGS__, "")
#define LOG_INFO(...) FSQ_LOG_(API_MSG_INFO, 0, __VA_ARGS__, "")
#define LOG_DEBUG(...) FSQ_LOG_(API_MSG_DEBUG, 0, __VA_ARGS__, "")

/* The empty string that the macros above add is for the `%s` at the end: without it `...` could be
 * empty, which neither C11 nor C++17 allows. */
#define FSQ_LOG_(level, rc, format, ...) \
	api_error((level), (rc), "%s:%d " format "%s", __FILE__, __LINE__, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
