/*
 * What the Lustre library had before 2.7, and this crate's users need: no layouts. Every path is
 * in a file system, and nothing else works.
 */
int llapi_search_mounts(void) { return 0; }
int llapi_search_fsname(void) { return -19; }
int llapi_path2fid(void) { return -95; }
int llapi_fd2fid(void) { return -95; }
int llapi_hsm_request(void) { return -19; }
int llapi_hsm_state_get(void) { return -25; }
int llapi_hsm_state_get_fd(void) { return -25; }
int llapi_hsm_current_action(void) { return -25; }
void llapi_msg_set_level(int level) { (void)level; }
