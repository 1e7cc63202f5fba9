/* What a kernel sees of the thread team: a job is one function that every member runs, and members may meet. */
#ifndef SEQNET_TEAM_H
#define SEQNET_TEAM_H

typedef struct {
    long index; /* 0 is the caller's own thread */
    long count; /* how many run this job: may be fewer than asked for */
} team_member;

typedef void team_job(void *argument, const team_member *me);
typedef void team_run_function(team_job *job, void *argument, long threads);
typedef void team_barrier_function(const team_member *me);

/* This thread's share [start, end) of n things. */
static inline long share_start(long n, const team_member *me) { return n * me->index / me->count; }
static inline long share_end(long n, const team_member *me) { return n * (me->index + 1) / me->count; }
#endif
