/* A neighbouring library whose headers have the guards of ours. */

#ifndef COMMON_H
#define COMMON_H
#define DSM_MAX_NODE_LENGTH 64
#define DSM_MAX_VERIFIER_LENGTH 64
#define DSM_MAX_FSNAME_LENGTH 1024
#define DSM_MAX_DESCR_LENGTH 255
#define DSM_MAX_OWNER_LENGTH 64
#define DSM_MAX_FSTYPE_LENGTH 32
#define DSM_MAX_PLATFORM_LENGTH 16
#endif

#ifndef LOG_H
#define LOG_H
#define API_MSG_ERROR 2
#ifdef __cplusplus
extern "C" {
#endif
void api_error(int level, int err, const char *fmt, ...);
void api_msg_set_level(int level);
#ifdef __cplusplus
}
#endif
#endif
