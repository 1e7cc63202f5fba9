/* The interface of the thread team: a job is a function that every member runs. Members may synchronize. */
#ifndef SEQNET_TEAM_H
#define SEQNET_TEAM_H

typedef struct {
    long index; /* 0 is the thread that called team_run */
    long count; /* members that run this job: possibly fewer than requested */
} team_member;

typedef void team_job(void *argument, const team_member *me);
typedef void team_run_function(team_job *job, void *argument, long threads);
typedef void team_barrier_function(const team_member *me);

/* The part [start, end) of n items that belongs to a member. */
static inline long share_start(long n, const team_member *me) { return n * me->index / me->count; }
static inline long share_end(long n, const team_member *me) { return n * (me->index + 1) / me->count; }
#endif
