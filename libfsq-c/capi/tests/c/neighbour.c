/* The neighbouring library: names that ours has as well, with other meanings. */

#include <stddef.h>

static int neighbour_level = 4;

void api_msg_set_level(int level)
{
	neighbour_level = level;
}

int api_msg_get_level(void)
{
	return neighbour_level;
}

#ifdef STATIC_NEIGHBOUR
int read_size(void)
{
	return 1001;
}

int write_size(void)
{
	return 1002;
}

int parse_conf(void)
{
	return 1003;
}

double time_now(void)
{
	return 1004.0;
}
#endif
