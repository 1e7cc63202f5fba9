/* The library of one precision: the parts below are put together here into one unit for the compiler. */
#include "vector.h"
#include "team.h"
#include "tile.h"
#include "block.h"

#include <unistd.h>

/* The team lives in a library of its own, because the float and the double library share it. */
static team_run_function *team_run;
static team_barrier_function *team_barrier;
static long second_level_cache = 1048576; /* bytes; this many where the system does not tell */
void attach_team(team_run_function *run, team_barrier_function *barrier) {
    team_run = run;
    team_barrier = barrier;
#ifdef _SC_LEVEL2_CACHE_SIZE
    long told = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (told > 0) second_level_cache = told;
#endif
}

#include "gemm.c"
#include "recurrence.c"
#include "rows.c"

long vector_bytes(void) { return VECTOR_BYTES; }
