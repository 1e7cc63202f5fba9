/* The library of one precision, as one translation unit. */
#include "vector.h"
#include "team.h"
#include "tile.h"
#include "row.h"
#include "block.h"

#include <unistd.h>

/* The team is in a library of its own, because the float and the double library share it. */
static team_run_function *team_run;
static team_barrier_function *team_barrier;
static long l2_cache_size = 1048576; /* bytes; the default if the system does not say */
void attach_team(team_run_function *run, team_barrier_function *barrier) {
    team_run = run;
    team_barrier = barrier;
#ifdef _SC_LEVEL2_CACHE_SIZE
    long told = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (told > 0) l2_cache_size = told;
#endif
}

#include "gemm.c"
#include "recurrence.c"
#include "program.c"
#include "rows.c"
#include "chain.c"
#include "ctc.c"
#include "steps.c"

long vector_bytes(void) { return VECTOR_BYTES; }

/* How products in bfloat16 are computed: 0 as on a processor without an instruction for them, 1 by it, 2 emulated. */
long bfloat16_products(void) {
#if REAL_BITS == 32 && defined(EMULATE_BFLOAT16)
    return 2;
#else
    return HAS_PAIR_INSTRUCTION;
#endif
}
