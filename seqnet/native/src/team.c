/* A persistent team of worker threads.
 *
 * How a job runs:
 *   1. The caller stores the job and publishes a new value of `current_job`.
 *   2. Workers that are still polling `current_job` start at once. Sleeping workers are woken.
 *   3. All members, including the caller, run the job. They may synchronize at team_barrier().
 *   4. The caller returns when all workers have finished. Workers poll for TEAM_POLL_NS, then sleep.
 *
 * So a training loop finds its workers awake, and an idle program uses no processor time. A thread that waits spins for
 * a short time, then yields, then sleeps, so that it never takes a processor from a thread that works.
 *
 * There is one team in a process. When two threads of the program want it at the same time, the second runs its job
 * alone: a job must give the same result with any number of members. A forked child has no workers and creates its own.
 */
#define _GNU_SOURCE
#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define TEAM_POLL_NS 1000000 /* longer than the host's work between two jobs of a training step */
#define TEAM_MAX 256
#define OWN_CACHE_LINE __attribute__((aligned(128)))

static struct {
    pthread_mutex_t busy;       /* held while a job runs */
    pthread_mutex_t wake_mutex; /* protects `wake` */
    pthread_cond_t wake;
    long workers; /* threads that exist, without the caller */
    long cores;
    team_job *job;
    void *argument;
    OWN_CACHE_LINE atomic_long current_job; /* job number * TEAM_MAX + members: one word, so that both are read at once */
    OWN_CACHE_LINE atomic_long sleeping;    /* workers that sleep */
    OWN_CACHE_LINE atomic_long running;     /* workers that have not finished the job */
    OWN_CACHE_LINE atomic_long arrived;     /* members at the barrier */
    OWN_CACHE_LINE atomic_long generation;  /* barriers passed */
} team = {.busy = PTHREAD_MUTEX_INITIALIZER, .wake_mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .cores = 1};

static void cpu_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait a moment for another member: spin, then yield, then sleep, depending on how often this was called before. */
static void back_off(long *turn, long members) {
    long spins = members > team.cores ? 0 : 300; /* some microseconds */
    if (*turn < spins)
        cpu_pause();
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

/* Wait for a job other than the last one. */
static long wait_for_job(long last) {
    long job, start = nanoseconds();
    do {
        for (int i = 0; i < 64; i++) {
            if ((job = atomic_load(&team.current_job)) != last) return job;
            cpu_pause();
        }
        sched_yield(); /* let other programs run */
    } while (nanoseconds() - start < TEAM_POLL_NS);
    pthread_mutex_lock(&team.wake_mutex);
    atomic_fetch_add(&team.sleeping, 1);
    while ((job = atomic_load(&team.current_job)) == last) pthread_cond_wait(&team.wake, &team.wake_mutex);
    atomic_fetch_sub(&team.sleeping, 1);
    pthread_mutex_unlock(&team.wake_mutex);
    return job;
}

static long job_at_start; /* the job before a new worker's first one: written before the worker starts */

static void *worker_main(void *index) {
    team_member me = {(long)index, 0};
    for (long last = job_at_start;;) {
        last = wait_for_job(last);
        me.count = last % TEAM_MAX;
        if (me.index >= me.count) continue;
        team.job(team.argument, &me);
        atomic_fetch_sub(&team.running, 1);
    }
    return NULL;
}

/* In a forked child: the workers do not exist there, and a thread that does not exist may have held a lock. */
static void reset_after_fork(void) {
    pthread_mutex_init(&team.busy, NULL);
    pthread_mutex_init(&team.wake_mutex, NULL);
    pthread_cond_init(&team.wake, NULL);
    team.workers = 0;
    atomic_store(&team.sleeping, 0);
    atomic_store(&team.running, 0);
    atomic_store(&team.arrived, 0);
}

/* Create workers until there are `count`, or the system allows no more. The caller holds `busy`. */
static void spawn_workers(long count) {
    static int registered = 0;
    if (!registered) pthread_atfork(NULL, NULL, reset_after_fork);
    registered = 1;
    sigset_t all, before; /* workers block all signals, which are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    job_at_start = atomic_load(&team.current_job);
    while (team.workers < count) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker_main, (void *)(team.workers + 1))) break;
        pthread_detach(thread);
        team.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void team_set_cores(long cores) { team.cores = cores; }

void team_barrier(const team_member *me) {
    if (me->count == 1) return;
    long generation = atomic_load(&team.generation), turn = 0;
    if (atomic_fetch_add(&team.arrived, 1) + 1 == me->count) {
        atomic_store(&team.arrived, 0);
        atomic_fetch_add(&team.generation, 1);
    } else {
        while (atomic_load(&team.generation) == generation) back_off(&turn, me->count);
    }
}

void team_run(team_job *job, void *argument, long threads) {
    team_member me = {0, 1};
    if (threads > TEAM_MAX - 1) threads = TEAM_MAX - 1;
    if (threads <= 1 || pthread_mutex_trylock(&team.busy)) {
        job(argument, &me);
        return;
    }
    if (team.workers + 1 < threads) spawn_workers(threads - 1);
    me.count = team.workers + 1 < threads ? team.workers + 1 : threads;
    team.job = job;
    team.argument = argument;
    atomic_store(&team.running, me.count - 1);
    atomic_store(&team.current_job, (atomic_load(&team.current_job) / TEAM_MAX + 1) * TEAM_MAX + me.count);
    if (atomic_load(&team.sleeping)) {
        pthread_mutex_lock(&team.wake_mutex);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.wake_mutex);
    }
    job(argument, &me);
    for (long turn = 0; atomic_load(&team.running);) back_off(&turn, me.count);
    pthread_mutex_unlock(&team.busy);
}
