/* A persistent team of threads.
 *
 * The story of one job:
 *   1. the caller writes the job down and raises the team's `signal`;
 *   2. helpers that still watch the signal start at once; those asleep are woken;
 *   3. everyone, the caller included, runs the job, meeting at team_barrier() where the job says so;
 *   4. the caller returns when the last helper has reported; helpers watch for TEAM_WATCH_NS, then sleep.
 *
 * So a training loop finds its helpers awake, and a program that does something else pays nothing for them. Waiting never
 * burns a processor that another thread needs: after a short while it yields, then sleeps.
 *
 * One team serves the process. When two threads of the program want it at once, the second runs its job alone (a job
 * must give the same result with any number of members). A forked child starts with no helpers and makes its own.
 */
#define _GNU_SOURCE
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define TEAM_WATCH_NS 1000000 /* bridges the host's work between two kernels of one training step */
#define TEAM_MOST 256
#define LINE __attribute__((aligned(128))) /* on a cache line of its own */

static struct {
    pthread_mutex_t busy;  /* held while a job runs */
    pthread_mutex_t sleep; /* guards `wake` */
    pthread_cond_t wake;
    long helpers; /* threads that exist, the caller not counted */
    long cores;
    team_job *job;
    void *argument;
    LINE atomic_long signal; /* job number * TEAM_MOST + members, in one word so that a late helper reads both or neither */
    LINE atomic_long sleepers;
    LINE atomic_long working; /* helpers that have yet to finish */
    LINE atomic_long arrived; /* at the barrier */
    LINE atomic_long round;   /* barriers passed */
} team = {.busy = PTHREAD_MUTEX_INITIALIZER, .sleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .cores = 1};

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* One turn of waiting for another member, who is working: spin, then yield, then sleep. */
static void wait_a_turn(long *turn, long members) {
    long spins = members > team.cores ? 0 : 300; /* some microseconds */
    if (*turn < spins)
        pause_briefly();
    else if (*turn < spins + 2000)
        sched_yield();
    else
        nanosleep(&(struct timespec){0, 50000}, NULL);
    ++*turn;
}

static long nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static long wait_for_signal(long seen) {
    long signal, start = nanoseconds();
    do {
        for (int i = 0; i < 64; i++) {
            if ((signal = atomic_load(&team.signal)) != seen) return signal;
            pause_briefly();
        }
        sched_yield(); /* to other programs, if there are any */
    } while (nanoseconds() - start < TEAM_WATCH_NS);
    pthread_mutex_lock(&team.sleep);
    atomic_fetch_add(&team.sleepers, 1);
    while ((signal = atomic_load(&team.signal)) == seen) pthread_cond_wait(&team.wake, &team.sleep);
    atomic_fetch_sub(&team.sleepers, 1);
    pthread_mutex_unlock(&team.sleep);
    return signal;
}

static long first_signal; /* what a new helper has seen already: written before it starts */

static void *help(void *index) {
    team_member me = {(long)index, 0};
    for (long seen = first_signal;;) {
        seen = wait_for_signal(seen);
        me.count = seen % TEAM_MOST;
        if (me.index >= me.count) continue;
        team.job(team.argument, &me);
        atomic_fetch_sub(&team.working, 1);
    }
    return NULL;
}

static void forget_helpers(void) { /* in a forked child: they did not come along, and locks may be held by nobody */
    pthread_mutex_init(&team.busy, NULL);
    pthread_mutex_init(&team.sleep, NULL);
    pthread_cond_init(&team.wake, NULL);
    team.helpers = 0;
    atomic_store(&team.sleepers, 0);
    atomic_store(&team.working, 0);
    atomic_store(&team.arrived, 0);
}

static void hire(long helpers) {
    static int once = 0;
    if (!once) pthread_atfork(NULL, NULL, forget_helpers);
    once = 1;
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    first_signal = atomic_load(&team.signal);
    while (team.helpers < helpers) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, (void *)(team.helpers + 1))) break;
        pthread_detach(thread);
        team.helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void team_set_cores(long cores) { team.cores = cores; }

void team_barrier(const team_member *me) {
    if (me->count == 1) return;
    long round = atomic_load(&team.round), turn = 0;
    if (atomic_fetch_add(&team.arrived, 1) + 1 == me->count) {
        atomic_store(&team.arrived, 0);
        atomic_fetch_add(&team.round, 1);
    } else {
        while (atomic_load(&team.round) == round) wait_a_turn(&turn, me->count);
    }
}

void team_run(team_job *job, void *argument, long threads) {
    team_member me = {0, 1};
    if (threads > TEAM_MOST - 1) threads = TEAM_MOST - 1;
    if (threads <= 1 || pthread_mutex_trylock(&team.busy)) {
        job(argument, &me);
        return;
    }
    if (team.helpers + 1 < threads) hire(threads - 1);
    me.count = team.helpers + 1 < threads ? team.helpers + 1 : threads;
    team.job = job;
    team.argument = argument;
    atomic_store(&team.working, me.count - 1);
    atomic_store(&team.signal, (atomic_load(&team.signal) / TEAM_MOST + 1) * TEAM_MOST + me.count);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.sleep);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.sleep);
    }
    job(argument, &me);
    for (long turn = 0; atomic_load(&team.working);) wait_a_turn(&turn, me.count);
    pthread_mutex_unlock(&team.busy);
}
