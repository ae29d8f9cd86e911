/* SPDX-License-Identifier: GPL-2.0-only */

/*
 * fsq/fsqapi.h: send files to an FSQ server.
 *
 *	fsq_init, fsq_fconnect, { fsq_fopen, fsq_fwrite ..., fsq_fclose } ..., fsq_fdisconnect
 *
 * Every function but fsq_fdisconnect returns 0 (fsq_fwrite: bytes), or a negative errno; the
 * reason is then in session.fsq_packet.fsq_error. Only a fsq_fclose that returns 0 says that the
 * server has the file: fsq_fwrite sends ahead of the server's replies, and an error may show at
 * the next fsq_fwrite or at fsq_fclose. After an error of the connection session.fd is -1.
 * One thread at a time may use a session; different sessions are independent.
 *
 * Environment: FSQ_CONNECT_TIMEOUT_MS [10000]; FSQ_REPLY_TIMEOUT_MS [900000], how long the server
 * may take to answer or to accept more data; FSQ_WINDOW [16], how many DATA packets are sent ahead
 * of their replies, 1 for none.
 */

#ifndef FSQAPI_H
#define FSQAPI_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "common.h"
#include "log.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FSQ_PROTOCOL_VER 1
#define FSQ_PORT_DEFAULT 7625
#define FSQ_MAX_ERRMSG_LENGTH 1024
#define FSQ_MAX_FPATH_LENGTH 4096

/* What a packet asks for, a bit mask; a reply has FSQ_REPLY set, a refusal is
 * FSQ_ERROR | FSQ_REPLY. */
enum fsq_protocol_state_t {
	FSQ_CONNECT = 0x1,
	FSQ_OPEN = 0x2,
	FSQ_DATA = 0x4,
	FSQ_CLOSE = 0x8,
	FSQ_DISCONNECT = 0x10,
	FSQ_REPLY = 0x20,
	FSQ_ERROR = 0x40
};

/* Where a file is to end up. */
enum fsq_storage_dest_t {
	FSQ_STORAGE_NULL = 0,	   /* received and dropped */
	FSQ_STORAGE_LOCAL = 1,	   /* kept on the server's staging file system */
	FSQ_STORAGE_LUSTRE = 2,	   /* copied to Lustre */
	FSQ_STORAGE_TSM = 3,	   /* archived on TSM */
	FSQ_STORAGE_LUSTRE_TSM = 4 /* copied to Lustre and archived on TSM */
};

/* How far a server is with a file, a bit mask. */
enum fsq_action_state_t {
	STATE_LOCAL_COPY_DONE = 0x1,
	STATE_LUSTRE_COPY_RUN = 0x2,
	STATE_LUSTRE_COPY_ERROR = 0x4,
	STATE_LUSTRE_COPY_DONE = 0x8,
	STATE_TSM_ARCHIVE_RUN = 0x10,
	STATE_TSM_ARCHIVE_ERROR = 0x20,
	STATE_TSM_ARCHIVE_DONE = 0x40,
	STATE_FILE_OMITTED = 0x80,
	STATE_FILE_KEEP = 0x100
};

/* Extended attributes of a staging file. */
#define XATTR_FSQ_STATE "user.fsq.state"
#define XATTR_FSQ_ARCHIVE_ID "user.fsq.arvid"
#define XATTR_FSQ_FS "user.fsq.fs"
#define XATTR_FSQ_FPATH "user.fsq.fpath"
#define XATTR_FSQ_DESC "user.fsq.desc"
#define XATTR_FSQ_STORAGE_DEST "user.fsq.stordest"

struct fsq_login_t {
	char node[DSM_MAX_NODE_LENGTH + 1];
	char password[DSM_MAX_VERIFIER_LENGTH + 1];
	char hostname[DSM_MAX_NODE_LENGTH + 1];
	int port;
};

struct fsq_info_t {
	char fs[DSM_MAX_FSNAME_LENGTH + 1];
	char fpath[FSQ_MAX_FPATH_LENGTH + 1];
	char desc[DSM_MAX_DESCR_LENGTH + 1];
	enum fsq_storage_dest_t fsq_storage_dest;
};

struct fsq_data_t {
	uint64_t size;
};

struct fsq_error_t {
	int rc; /* 0, or a negative errno */
	char strerror[FSQ_MAX_ERRMSG_LENGTH + 1];
};

/* As it goes over the wire. */
struct fsq_packet_t {
	uint8_t ver;
	struct fsq_error_t fsq_error;
	enum fsq_protocol_state_t state;
	union {
		struct fsq_login_t fsq_login;
		struct fsq_info_t fsq_info;
		struct fsq_data_t fsq_data;
	};
} __attribute__((packed, aligned(4)));

struct fsq_session_t {
	struct fsq_packet_t fsq_packet;
	int fd; /* -1 while there is no connection */
};

/* An item of a server's queue, here for programs that name the type: no function takes or makes
 * one, and beyond size and alignment nothing is promised. */
struct fsq_action_item_t {
	struct fsq_info_t fsq_info;
	char fpath_local[FSQ_MAX_FPATH_LENGTH + 1];
	enum fsq_action_state_t fsq_action_state;
	int archive_id;
	uid_t uid;
	gid_t gid;
	uint64_t reserved[7];
};

/*
 * Fills a login: -EFAULT for NULL, -EOVERFLOW for a string that does not fit. The port becomes
 * FSQ_PORT_DEFAULT.
 */
int fsq_init(struct fsq_login_t *fsq_login, const char *node, const char *password,
	     const char *hostname);

/* Connects and signs on. Whatever the session held before is forgotten. */
int fsq_fconnect(struct fsq_login_t *fsq_login, struct fsq_session_t *fsq_session);

/* Signs off and closes the socket; fd becomes -1. A file that is still open is discarded. */
void fsq_fdisconnect(struct fsq_session_t *fsq_session);

/*
 * Begins a file; fsq_session->fsq_packet.fsq_info describes it then. `desc` may be NULL. After a
 * refusal the session can take the next file, unless fd is -1. fsq_fopen has the destination
 * FSQ_STORAGE_LUSTRE_TSM.
 */
int fsq_fopen(const char *fs, const char *fpath, const char *desc,
	      struct fsq_session_t *fsq_session);
int fsq_fdopen(const char *fs, const char *fpath, const char *desc,
	       enum fsq_storage_dest_t fsq_storage_dest, struct fsq_session_t *fsq_session);

/* Returns size * nmemb, or a negative errno; never a part of it. */
ssize_t fsq_fwrite(const void *ptr, size_t size, size_t nmemb, struct fsq_session_t *fsq_session);

/* 0 says that the server has acknowledged the whole file. */
int fsq_fclose(struct fsq_session_t *fsq_session);

/*
 * For programs that speak the protocol themselves: send fsq_session->fsq_packet with this state,
 * after all that fsq_fwrite has left to send; receive a packet into it, and return its rc if its
 * state is the one expected or a refusal, else -EPROTO.
 */
int fsq_send(struct fsq_session_t *fsq_session, enum fsq_protocol_state_t fsq_protocol_state);
int fsq_recv(struct fsq_session_t *fsq_session, enum fsq_protocol_state_t fsq_protocol_state);

/* Between the order of this machine and that of the wire, either way. */
void fsq_packet_endian_swap(struct fsq_packet_t *fsq_packet);

/* Notes an error in a session (a struct, not a pointer) and logs it. */
#define FSQ_ERROR(session, error, ...) \
	do { \
		(session).fsq_packet.fsq_error.rc = (error); \
		snprintf((session).fsq_packet.fsq_error.strerror, FSQ_MAX_ERRMSG_LENGTH + 1, \
			 __VA_ARGS__); \
		api_error(API_MSG_ERROR, (error), "%s", (session).fsq_packet.fsq_error.strerror); \
	} while (0)

/* Names for messages. */
#define FSQ_PROTOCOL_VER_STR(ver) ((ver) == FSQ_PROTOCOL_VER ? "1" : "UNKNOWN")

#define FSQ_PROTOCOL_STR(state) \
	((state) == FSQ_CONNECT			  ? "FSQ_CONNECT" : \
	 (state) == FSQ_OPEN			  ? "FSQ_OPEN" : \
	 (state) == FSQ_DATA			  ? "FSQ_DATA" : \
	 (state) == FSQ_CLOSE			  ? "FSQ_CLOSE" : \
	 (state) == FSQ_DISCONNECT		  ? "FSQ_DISCONNECT" : \
	 (state) == FSQ_REPLY			  ? "FSQ_REPLY" : \
	 (state) == FSQ_ERROR			  ? "FSQ_ERROR" : \
	 (int)(state) == (FSQ_CONNECT | FSQ_REPLY) ? "FSQ_CONNECT|FSQ_REPLY" : \
	 (int)(state) == (FSQ_OPEN | FSQ_REPLY)	  ? "FSQ_OPEN|FSQ_REPLY" : \
	 (int)(state) == (FSQ_DATA | FSQ_REPLY)	  ? "FSQ_DATA|FSQ_REPLY" : \
	 (int)(state) == (FSQ_CLOSE | FSQ_REPLY)  ? "FSQ_CLOSE|FSQ_REPLY" : \
	 (int)(state) == (FSQ_ERROR | FSQ_REPLY)  ? "FSQ_ERROR|FSQ_REPLY" : \
						    "UNKNOWN")

#define FSQ_STORAGE_DEST_STR(dest) \
	((dest) == FSQ_STORAGE_NULL	  ? "FSQ_STORAGE_NULL" : \
	 (dest) == FSQ_STORAGE_LOCAL	  ? "FSQ_STORAGE_LOCAL" : \
	 (dest) == FSQ_STORAGE_LUSTRE	  ? "FSQ_STORAGE_LUSTRE" : \
	 (dest) == FSQ_STORAGE_TSM	  ? "FSQ_STORAGE_TSM" : \
	 (dest) == FSQ_STORAGE_LUSTRE_TSM ? "FSQ_STORAGE_LUSTRE_TSM" : \
					    "UNKNOWN")

#define FSQ_ACTION_STR(action) \
	((action) == STATE_LOCAL_COPY_DONE   ? "STATE_LOCAL_COPY_DONE" : \
	 (action) == STATE_LUSTRE_COPY_RUN   ? "STATE_LUSTRE_COPY_RUN" : \
	 (action) == STATE_LUSTRE_COPY_ERROR ? "STATE_LUSTRE_COPY_ERROR" : \
	 (action) == STATE_LUSTRE_COPY_DONE  ? "STATE_LUSTRE_COPY_DONE" : \
	 (action) == STATE_TSM_ARCHIVE_RUN   ? "STATE_TSM_ARCHIVE_RUN" : \
	 (action) == STATE_TSM_ARCHIVE_ERROR ? "STATE_TSM_ARCHIVE_ERROR" : \
	 (action) == STATE_TSM_ARCHIVE_DONE  ? "STATE_TSM_ARCHIVE_DONE" : \
	 (action) == STATE_FILE_OMITTED	     ? "STATE_FILE_OMITTED" : \
	 (action) == STATE_FILE_KEEP	     ? "STATE_FILE_KEEP" : \
					       "UNKNOWN")

#ifdef __cplusplus
}
#endif

#endif
