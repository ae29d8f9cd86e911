/*
 * Asks the simulated Lustre library to archive a file and waits until it is. Every type and
 * prototype is declared here once more, by hand, so that a mistake in the Rust declarations
 * cannot cancel itself out.
 *
 * Arguments: mount point, file in it, path outside of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct lu_fid { uint64_t seq; uint32_t oid, ver; };
struct extent { uint64_t offset, length; };
struct user_state {
    uint32_t states, archive_id, in_progress_state, in_progress_action;
    struct extent in_progress_location;
};
struct item { struct lu_fid fid; struct extent extent; };
struct request {
    uint32_t action, archive_id;
    uint64_t flags;
    uint32_t itemcount, data_len;
    struct item items[];
};
struct current_action { uint32_t state, action; struct extent location; };

int llapi_search_fsname(const char *, char *);
int llapi_search_mounts(const char *, int, char *, char *);
int llapi_path2fid(const char *, struct lu_fid *);
int llapi_fd2fid(int, struct lu_fid *);
struct request *llapi_hsm_user_request_alloc(int, int);
int llapi_hsm_request(const char *, const struct request *);
int llapi_hsm_state_get(const char *, struct user_state *);
int llapi_hsm_state_get_fd(int, struct user_state *);
int llapi_hsm_state_set(const char *, uint64_t, uint64_t, uint32_t);
int llapi_hsm_current_action(const char *, struct current_action *);
void llapi_msg_set_level(int);

#define WANT(value, call)                                                            \
    do {                                                                             \
        long long got = (call), wanted = (value);                                    \
        if (got != wanted) {                                                         \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__,     \
                    #call, got, wanted);                                             \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

static void check_limits(const char *mount, const struct lu_fid *fid)
{
    for (int count = 0; count <= 53; count += 53) {
        struct request *request = llapi_hsm_user_request_alloc(count, 0);
        memset(request, 0, sizeof *request);
        request->action = 10;
        request->itemcount = count;
        for (int i = 0; i < count; i++)
            request->items[i] = (struct item){*fid, {0, UINT64_MAX}};
        WANT(count ? -E2BIG : 0, llapi_hsm_request(mount, request));
        free(request);
    }
}

static void check_elsewhere(const char *path)
{
    char name[PATH_MAX], directory[PATH_MAX];
    struct lu_fid fid;
    struct user_state state;
    struct current_action action;
    struct request request = {.action = 10};
    WANT(-ENODEV, llapi_search_fsname(path, name));
    WANT(-ENODEV, llapi_search_mounts(path, 0, directory, name));
    WANT(-EOPNOTSUPP, llapi_path2fid(path, &fid));
    WANT(-ENOTTY, llapi_hsm_state_get(path, &state));
    WANT(-ENOTTY, llapi_hsm_current_action(path, &action));
    WANT(-ENODEV, llapi_hsm_request(path, &request));
    WANT(-ENODEV, llapi_hsm_request("relative", &request));
    WANT(-ENOENT, llapi_path2fid("/nonexistent/file", &fid));
    WANT(-EBADF, llapi_fd2fid(-1, &fid));
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    _Static_assert(sizeof(struct lu_fid) == 16 && sizeof(struct item) == 32, "layout");
    _Static_assert(offsetof(struct request, items) == 24, "layout");
    _Static_assert(sizeof(struct user_state) == 32, "layout");
    _Static_assert(sizeof(struct current_action) == 24, "layout");
    const char *mount = argv[1], *path = argv[2];
    llapi_msg_set_level(0);

    char name[PATH_MAX], directory[PATH_MAX];
    WANT(0, llapi_search_fsname(path, name));
    WANT(0, strcmp(name, "simfs"));
    WANT(0, llapi_search_mounts(path, 0, directory, name));
    WANT(0, strcmp(directory, mount));

    struct lu_fid fid, same;
    int fd = open(path, O_RDONLY);
    WANT(0, llapi_path2fid(path, &fid));
    WANT(0, llapi_fd2fid(fd, &same));
    WANT(0, memcmp(&fid, &same, sizeof fid));

    struct user_state state;
    struct current_action action;
    WANT(0, llapi_hsm_state_get(path, &state));
    WANT(0, state.states);
    WANT(0, llapi_hsm_current_action(path, &action));
    WANT(1, action.state);
    WANT(1, action.action);
    WANT(0, llapi_hsm_state_set(path, 0x20, 0, 0));
    check_limits(mount, &fid);

    struct request *request = llapi_hsm_user_request_alloc(2, 0);
    request->action = 10;
    request->archive_id = 3;
    request->flags = 0;
    request->itemcount = 2;
    request->data_len = 0;
    request->items[0] = request->items[1] = (struct item){fid, {0, UINT64_MAX}};
    WANT(-EPERM, llapi_hsm_request(mount, request));
    WANT(0, llapi_hsm_state_set(path, 0, 0x20, 0));
    WANT(-EINVAL, llapi_hsm_state_set(path, 0x02, 0, 0));
    WANT(0, llapi_hsm_request(mount, request));
    free(request);
    for (int i = 0; i < 4000; i++) {
        WANT(0, llapi_hsm_state_get_fd(fd, &state));
        WANT(0, state.in_progress_action);
        if (state.states == 0x09)
            break;
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    WANT(0x09, state.states);
    WANT(3, state.archive_id);
    check_elsewhere(argv[3]);
    printf("%llx %x\n", (unsigned long long)fid.seq, fid.oid);
    return 0;
}
