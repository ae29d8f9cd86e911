/*
 * A caller like those in the field, one scenario a run: caller SCENARIO PORT. As C11 and as C++17.
 * Ends with 0, or with the line that was not as expected on standard error.
 */

#include "callers.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			exit(1); \
		} \
	} while (0)

static int port;

static struct fsq_session_t *new_session(void)
{
	/* malloc as callers use it, filled with what it may hold. */
	struct fsq_session_t *session = (struct fsq_session_t *)malloc(sizeof(*session));

	CHECK(session);
	memset(session, 0xa5, sizeof(*session));
	return session;
}

static void set_login(struct fsq_login_t *login, const char *host)
{
	memset(login, 0xa5, sizeof(*login));
	strcpy(login->node, "polaris");
	strcpy(login->password, "correct-horse");
	strcpy(login->hostname, host);
	login->port = port;
}

static struct fsq_session_t *connected(void)
{
	struct fsq_session_t *session = new_session();
	struct fsq_login_t login;

	set_login(&login, "localhost");
	CHECK(fsq_fconnect(&login, session) == 0);
	CHECK(session->fd > 2);
	CHECK(session->fsq_packet.fsq_error.rc == 0);
	return session;
}

static void write_all(struct fsq_session_t *session, char byte, size_t size)
{
	char *bytes = (char *)malloc(size ? size : 1);

	CHECK(bytes);
	memset(bytes, byte, size);
	CHECK(fsq_fwrite(bytes, 1, size, session) == (ssize_t)size);
	free(bytes);
}

static void send_file(struct fsq_session_t *session, const char *path, char byte, size_t size)
{
	CHECK(fsq_fdopen("/lustre", path, "described", FSQ_STORAGE_LUSTRE, session) == 0);
	write_all(session, byte, size);
	CHECK(fsq_fclose(session) == 0);
}

static int count_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int count = 0;

	CHECK(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void arguments(void)
{
	char long_name[66];
	struct fsq_login_t login;
	struct fsq_session_t *session = connected();

	memset(long_name, 'x', sizeof(long_name) - 1);
	long_name[65] = 0;
	CHECK(fsq_init(NULL, "n", "p", "h") == -EFAULT);
	CHECK(fsq_init(&login, NULL, "p", "h") == -EFAULT);
	CHECK(fsq_init(&login, "n", NULL, "h") == -EFAULT);
	CHECK(fsq_init(&login, "n", "p", NULL) == -EFAULT);
	CHECK(fsq_init(&login, long_name, "p", "h") == -EOVERFLOW);
	CHECK(fsq_init(&login, "n", long_name, "h") == -EOVERFLOW);
	CHECK(fsq_init(&login, "n", "p", long_name) == -EOVERFLOW);
	long_name[64] = 0;
	CHECK(fsq_init(&login, long_name, "p", "h") == 0);
	CHECK(!strcmp(login.node, long_name) && login.port == FSQ_PORT_DEFAULT);

	CHECK(fsq_fconnect(NULL, session) == -EFAULT);
	CHECK(fsq_fconnect(&login, NULL) == -EFAULT);
	CHECK(fsq_fopen(NULL, "/lustre/x", NULL, session) == -EFAULT);
	CHECK(fsq_fopen("/lustre", NULL, NULL, session) == -EFAULT);
	CHECK(fsq_fopen("/lustre", "/lustre/x", NULL, NULL) == -EFAULT);
	CHECK(fsq_fdopen("/lustre", "/lustre/x", NULL, (enum fsq_storage_dest_t)7, session) ==
	      -EINVAL);
	CHECK(fsq_fwrite("x", 1, 1, session) == -EBADF);
	CHECK(fsq_fclose(session) == -EBADF);
	CHECK(strstr(session->fsq_packet.fsq_error.strerror, "no file is open"));
	CHECK(session->fsq_packet.fsq_error.rc == -EBADF);
	CHECK(fsq_fopen("/lustre", "/lustre/x", NULL, session) == 0);
	CHECK(session->fsq_packet.fsq_info.fsq_storage_dest == FSQ_STORAGE_LUSTRE_TSM);
	CHECK(fsq_fwrite(NULL, 1, 1, session) == -EFAULT);
	CHECK(fsq_fwrite(NULL, 1, 0, session) == 0);
	CHECK(fsq_fwrite("x", (size_t)-1, 2, session) == -EOVERFLOW);
	CHECK(fsq_fwrite("x", (size_t)-1, 1, session) == -EOVERFLOW);
	CHECK(fsq_fwrite("xyz", 3, 1, session) == 3);
	CHECK(fsq_fclose(session) == 0);
	fsq_fdisconnect(session);
	CHECK(session->fd == -1);
	fsq_fdisconnect(session);
	fsq_fdisconnect(NULL);
	CHECK(fsq_fclose(session) == -ENOTCONN);
	free(session);

	login.port = 0;
	session = new_session();
	CHECK(fsq_fconnect(&login, session) == -EINVAL && session->fd == -1);
	memset(login.node, 'x', sizeof(login.node));
	CHECK(fsq_fconnect(&login, session) == -EOVERFLOW && session->fd == -1);
	free(session);
}

/* Five tries, then ten files a session, and again. */
static void ten_files(void)
{
	struct fsq_login_t login;
	struct fsq_session_t *session = new_session();
	char path[64];
	int round, try_, file;

	memset(session, 0, sizeof(*session));
	set_login(&login, "localhost");
	for (round = 0; round < 2; round++) {
		for (try_ = 0; try_ < 5; try_++) {
			if (fsq_fconnect(&login, session) == 0)
				break;
		}
		CHECK(try_ < 5);
		for (file = 0; file < 10; file++) {
			snprintf(path, sizeof(path), "/lustre/%d-%d", round, file);
			send_file(session, path, (char)('a' + file), 10000);
		}
		fsq_fdisconnect(session);
	}
	free(session);
}

static void event(void)
{
	struct fsq_session_t *session = connected();
	struct fsq_info_t info;

	CHECK(fsq_fdopen("/lustre", "/lustre/event", "described", FSQ_STORAGE_TSM, session) == 0);
	info = session->fsq_packet.fsq_info;
	CHECK(!strcmp(info.fs, "/lustre") && !strcmp(info.fpath, "/lustre/event"));
	CHECK(!strcmp(info.desc, "described") && info.fsq_storage_dest == FSQ_STORAGE_TSM);
	write_all(session, 'h', 32);
	write_all(session, 'd', 4000000);
	write_all(session, 'd', 4000000);
	write_all(session, 't', 32);
	CHECK(fsq_fclose(session) == 0);
	fsq_fdisconnect(session);
	free(session);
}

/* Sessions that are freed without a word, and their numbers used again. */
static void abandoned(void)
{
	struct fsq_session_t *first = connected(), *second;
	int number = first->fd;

	CHECK(fsq_fopen("/lustre", "/lustre/never", NULL, first) == 0);
	write_all(first, 'x', 100000);
	CHECK(close(number) == 0);
	memset(first, 0x5a, sizeof(*first));
	free(first);

	second = connected();
	CHECK(second->fd == number);
	send_file(second, "/lustre/good", 'g', 100000);
	/* Nothing of the first has closed the second's number. */
	CHECK(fsq_fopen("/lustre", "/lustre/better", NULL, second) == 0);
	CHECK(fsq_fclose(second) == 0);
	free(second);

	/* And one that stays open: the next has another number. */
	second = connected();
	CHECK(second->fd != number);
	fsq_fdisconnect(second);
	free(second);
}

/* The server refuses the first OPEN. */
static void failed_open(void)
{
	struct fsq_session_t *session = connected();

	CHECK(fsq_fopen("/lustre", "/lustre/old", NULL, session) == -EEXIST);
	CHECK(session->fsq_packet.fsq_error.rc == -EEXIST);
	CHECK(strstr(session->fsq_packet.fsq_error.strerror, "the file exists"));
	CHECK(!strcmp(session->fsq_packet.fsq_info.fpath, "/lustre/old"));
	CHECK(session->fd > 2);
	memset(session, 0x5a, sizeof(*session));
	free(session);

	session = connected();
	CHECK(fsq_fopen("/lustre", "/lustre/old", NULL, session) == -EEXIST);
	send_file(session, "/lustre/new", 'n', 10);
	fsq_fdisconnect(session);
	free(session);
}

static void *one_of_many(void *number)
{
	struct fsq_session_t *session = connected();
	char path[64];
	int file;

	for (file = 0; file < 5; file++) {
		snprintf(path, sizeof(path), "/lustre/%d-%d", *(int *)number, file);
		send_file(session, path, (char)('a' + *(int *)number), 300000);
	}
	fsq_fdisconnect(session);
	free(session);
	return NULL;
}

static void threads(void)
{
	pthread_t ids[16];
	int numbers[16], i;

	for (i = 0; i < 16; i++) {
		numbers[i] = i;
		CHECK(pthread_create(&ids[i], NULL, one_of_many, &numbers[i]) == 0);
	}
	for (i = 0; i < 16; i++)
		CHECK(pthread_join(ids[i], NULL) == 0);
}

/* Standard input is closed, and a zeroed session says descriptor 0. */
static void standard_descriptors(void)
{
	struct fsq_session_t zeroed, *session;

	memset(&zeroed, 0, sizeof(zeroed));
	fsq_fdisconnect(&zeroed);
	CHECK(zeroed.fd == -1);
	CHECK(close(0) == 0);
	session = connected();
	send_file(session, "/lustre/x", 'x', 10);
	fsq_fdisconnect(session);
	free(session);
}

/* The protocol by hand, mixed with the usual functions. */
static void by_hand(void)
{
	struct fsq_session_t *session = connected();
	struct fsq_packet_t *packet = &session->fsq_packet;

	memset(packet, 0, sizeof(*packet));
	strcpy(packet->fsq_info.fs, "/lustre");
	strcpy(packet->fsq_info.fpath, "/lustre/hand");
	packet->fsq_info.fsq_storage_dest = FSQ_STORAGE_LUSTRE;
	CHECK(fsq_recv(session, FSQ_REPLY) == -EPROTO);
	packet->fsq_error.rc = 0;
	CHECK(fsq_send(session, FSQ_OPEN) == 0);
	CHECK(fsq_recv(session, (enum fsq_protocol_state_t)(FSQ_OPEN | FSQ_REPLY)) == 0);
	CHECK(!strcmp(packet->fsq_info.fpath, "/lustre/hand"));
	CHECK(fsq_fwrite("usual ", 1, 6, session) == 6);
	packet->fsq_data.size = 4;
	CHECK(fsq_send(session, FSQ_DATA) == 0);
	CHECK(write(session->fd, "hand", 4) == 4);
	CHECK(fsq_recv(session, (enum fsq_protocol_state_t)(FSQ_DATA | FSQ_REPLY)) == 0);
	CHECK(fsq_send(session, FSQ_CLOSE) == 0);
	CHECK(fsq_recv(session, (enum fsq_protocol_state_t)(FSQ_CLOSE | FSQ_REPLY)) == 0);
	CHECK(fsq_send(session, FSQ_DISCONNECT) == 0);
	CHECK(session->fd == -1);
	free(session);
}

/* The server fails somewhere: every call gives all or a negative errno, nothing leaks. */
static void fault(void)
{
	struct fsq_login_t login;
	struct fsq_session_t *session = new_session();
	char *bytes = (char *)calloc(1, 1 << 20);
	int before = count_fds(), i;
	ssize_t rc;

	CHECK(bytes);
	set_login(&login, "localhost");
	rc = fsq_fconnect(&login, session);
	if (rc == 0)
		rc = fsq_fopen("/lustre", "/lustre/x", NULL, session);
	for (i = 0; i < 4 && rc >= 0; i++) {
		rc = fsq_fwrite(bytes, 1 << 10, 1 << 10, session);
		CHECK(rc == 1 << 20 || rc < 0);
	}
	if (rc >= 0)
		rc = fsq_fclose(session);
	CHECK(rc < 0);
	CHECK(session->fsq_packet.fsq_error.rc == rc);
	CHECK(strlen(session->fsq_packet.fsq_error.strerror) > 10);
	CHECK(session->fd == -1);
	CHECK(count_fds() == before);
	CHECK(fsq_fwrite(bytes, 1, 1, session) == -ENOTCONN);
	CHECK(fsq_fclose(session) == -ENOTCONN);
	fsq_fdisconnect(session);
	CHECK(count_fds() == before);
	printf("%d\n", (int)-rc);
	free(session);
	free(bytes);
}

static void unknown_host(void)
{
	struct fsq_login_t login;
	struct fsq_session_t *session = new_session();
	int before = count_fds();

	set_login(&login, "no-such-host.invalid");
	CHECK(fsq_fconnect(&login, session) == -EHOSTUNREACH);
	CHECK(session->fd == -1);
	CHECK(strstr(session->fsq_packet.fsq_error.strerror, "'no-such-host.invalid'"));
	CHECK(count_fds() == before);
	free(session);
}

#ifndef NEIGHBOUR_HEADERS
static int told;

static void count(enum api_message_level level, int err, const char *fmt, va_list ap)
{
	char text[256];

	(void)err;
	vsnprintf(text, sizeof(text), fmt, ap);
	CHECK(level <= API_MSG_WARN ? strstr(text, "grave") != NULL : strstr(text, "light") != NULL);
	told++;
}

static void messages(void)
{
	CHECK(api_msg_get_level() == API_MSG_NORMAL);
	CHECK(api_error_callback_set(count) == NULL);
	CHECK(api_info_callback_set(count) == NULL);
	errno = 77;
	api_error(API_MSG_ERROR, -2, "grave %d %s %f", 1, "two", 3.0);
	api_error(API_MSG_NORMAL, 0, "light %d", 1);
	api_error(API_MSG_DEBUG, 0, "light but not told");
	CHECK(told == 2 && errno == 77);
	api_msg_set_level(API_MSG_OFF);
	api_error(API_MSG_FATAL, 0, "grave but not told");
	CHECK(told == 2);
	api_msg_set_level(API_MSG_DEBUG);
	CHECK(api_error_callback_set(NULL) == count);
	CHECK(api_info_callback_set(NULL) == count);
	api_error(API_MSG_ERROR, -2, "a%d%d%d%d%d%d%d%d%d %.1f", 1, 2, 3, 4, 5, 6, 7, 8, 9, 0.5);
}
#endif

static void neighbour_level(void)
{
	struct fsq_session_t *session = connected();

	api_msg_set_level(0);
	CHECK(fsq_fclose(session) == -EBADF);
	fprintf(stderr, "--\n");
	api_msg_set_level(6);
	CHECK(fsq_fclose(session) == -EBADF);
	fsq_fdisconnect(session);
	free(session);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} scenarios[] = {
		{ "arguments", arguments },
		{ "ten_files", ten_files },
		{ "event", event },
		{ "abandoned", abandoned },
		{ "failed_open", failed_open },
		{ "threads", threads },
		{ "standard_descriptors", standard_descriptors },
		{ "by_hand", by_hand },
		{ "fault", fault },
		{ "unknown_host", unknown_host },
#ifndef NEIGHBOUR_HEADERS
		{ "messages", messages },
#endif
		{ "neighbour_level", neighbour_level },
	};
	size_t i;

	CHECK(argc == 3);
	port = atoi(argv[2]);
	for (i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (!strcmp(argv[1], scenarios[i].name)) {
			scenarios[i].run();
			return 0;
		}
	}
	fprintf(stderr, "there is no scenario %s\n", argv[1]);
	return 2;
}
