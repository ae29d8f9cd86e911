/* The layouts that deployed callers were compiled with; as C11 and as C++17. */

#include "callers.h"

#include <assert.h>

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #field)
#define SIZE(type, size, align) \
	static_assert(sizeof(type) == (size) && alignof(type) == (align), #type)

#ifndef __cplusplus
#include <stdalign.h>
#endif

SIZE(struct fsq_login_t, 200, 4);
AT(struct fsq_login_t, node, 0);
AT(struct fsq_login_t, password, 65);
AT(struct fsq_login_t, hostname, 130);
AT(struct fsq_login_t, port, 196);

SIZE(struct fsq_info_t, 5384, 4);
AT(struct fsq_info_t, fs, 0);
AT(struct fsq_info_t, fpath, 1025);
AT(struct fsq_info_t, desc, 5122);
AT(struct fsq_info_t, fsq_storage_dest, 5380);

SIZE(struct fsq_data_t, 8, 8);

SIZE(struct fsq_error_t, 1032, 4);
AT(struct fsq_error_t, rc, 0);
AT(struct fsq_error_t, strerror, 4);

SIZE(struct fsq_packet_t, 6424, 4);
AT(struct fsq_packet_t, ver, 0);
AT(struct fsq_packet_t, fsq_error, 1);
AT(struct fsq_packet_t, state, 1033);
AT(struct fsq_packet_t, fsq_login, 1037);
AT(struct fsq_packet_t, fsq_info, 1037);
AT(struct fsq_packet_t, fsq_data, 1037);

SIZE(struct fsq_session_t, 6428, 4);
AT(struct fsq_session_t, fsq_packet, 0);
AT(struct fsq_session_t, fd, 6424);

SIZE(struct fsq_action_item_t, 9560, 8);

int main(void)
{
	struct fsq_session_t session;

	/* Everything that callers name exists. */
	memset(&session, 0, sizeof(session));
	FSQ_ERROR(session, -5, "failed with %d", 7);
	assert(session.fsq_packet.fsq_error.rc == -5);
	assert(!strcmp(session.fsq_packet.fsq_error.strerror, "failed with 7"));
	assert(!strcmp(FSQ_PROTOCOL_STR(FSQ_OPEN), "FSQ_OPEN"));
	assert(!strcmp(FSQ_PROTOCOL_STR(FSQ_ERROR | FSQ_REPLY), "FSQ_ERROR|FSQ_REPLY"));
	assert(!strcmp(FSQ_PROTOCOL_VER_STR(FSQ_PROTOCOL_VER), "1"));
	assert(!strcmp(FSQ_STORAGE_DEST_STR(FSQ_STORAGE_TSM), "FSQ_STORAGE_TSM"));
	assert(!strcmp(FSQ_ACTION_STR(STATE_FILE_KEEP), "STATE_FILE_KEEP"));
	assert(FSQ_PORT_DEFAULT == 7625 && FSQ_MAX_ERRMSG_LENGTH == 1024);
	assert(!strcmp(XATTR_FSQ_STATE, "user.fsq.state"));
	assert(DSM_MAX_OWNER_LENGTH == 64 && DSM_MAX_FSTYPE_LENGTH == 32);
	assert(DSM_MAX_PLATFORM_LENGTH == 16 && DSM_MAX_DESCR_LENGTH == 255);
	fsq_packet_endian_swap(&session.fsq_packet);
#ifndef NEIGHBOUR_HEADERS
	struct login_t login;
	struct kv_opt options;

	assert(sizeof(login.node) == 65 && OPTNCMP("tolerr", "tolerr") && !OPTNCMP("a", "ab"));
	assert(parse_conf("/nonexistent", &options) == -2 && options.N == 0);
	LOG_ERROR(-2, "no arguments");
	LOG_WARN("one %d", 1);
	LOG_MESSAGE("a message");
	LOG_INFO("not told %s", "at the level that is set");
	LOG_DEBUG("nor this");
	assert(time_now() > 1.6e9);
#endif
	return 0;
}
