/* How callers include the headers: HAVE_CONFIG_H without a config.h, wrapped in extern "C" by
 * those in C++, and maybe behind a neighbouring library's headers with the same guards. */

#define HAVE_CONFIG_H 1

#ifdef NEIGHBOUR_HEADERS
#include "neighbour.h"
#endif

#if defined(__cplusplus) && defined(WRAPPED)
extern "C" {
#endif
#include <fsq/fsqapi.h>
#if defined(__cplusplus) && defined(WRAPPED)
}
#endif

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
