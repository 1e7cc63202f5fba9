/* A list of kernel calls that is run for many steps, with numbers drawn from the probabilities of each step.
 *
 * The calls have been noted while they ran once (`recording` in core.py), so all addresses are known. A step is: run the
 * calls, copy the states after the step to the states before it, draw a number for each row, which the next step reads. */
typedef struct {
    void (*run)(void *arguments, long threads);
    void *arguments;
    long threads;
} kernel_call;

typedef struct {
    const char *from;
    char *to;
    long bytes;
} state_copy;

typedef struct {
    long calls;
    const kernel_call *call;
    long copies;
    const state_copy *copy;
    long rows, classes, steps;
    int64_t *ids;               /* (rows,): what the calls read */
    const int64_t *given;       /* (steps, rows): what each step reads, or NULL: `ids`, then what was drawn */
    const real *probabilities;  /* (rows, classes) */
    double temperature, top_p;  /* 0 selects the most probable number */
    long top_k;
    const double *uniform; /* (steps, rows): random numbers from 0 to 1 */
    int64_t *drawn;        /* (steps, rows), or NULL: nothing is drawn */
    double *log_p;         /* (steps, rows), or NULL: the logarithms of the probabilities of what was drawn */
    double *scratch;       /* (threads, 2 * classes) */
    long failed;           /* out: the number of a row of `probabilities` that are none, or -1 */
} steps;

/* A heap of numbers of classes, the most probable first, of two that are equal the first. */
static int comes_before(const double *w, long a, long b) { return w[a] > w[b] || (w[a] == w[b] && a < b); }

static void sift_down(const double *w, long *heap, long count, long place) {
    for (;;) {
        long best = place, below = 2 * place + 1;
        for (long i = below; i < below + 2 && i < count; i++)
            if (comes_before(w, heap[i], heap[best])) best = i;
        if (best == place) return;
        long moved = heap[place];
        heap[place] = heap[best];
        heap[best] = moved;
        place = best;
    }
}

/* Return the least probable class that is kept: the last of `top_k`, or the first that completes the probability `top_p`. */
static long last_kept(const double *w, double total, long n, long top_k, double top_p, long *heap) {
    double sum = 0;
    for (long i = 0; i < n; i++) heap[i] = i;
    for (long i = n / 2 - 1; i >= 0; i--) sift_down(w, heap, n, i);
    for (long count = n, kept = 1;; kept++) {
        long best = heap[0];
        sum += w[best];
        if (kept == top_k || kept == n || sum / total >= top_p) return best;
        heap[0] = heap[--count];
        sift_down(w, heap, count, 0);
    }
}

/* Return the class that a random number selects, or -1 if these are not probabilities. */
static long draw(const steps *q, const real *p, double uniform, double *w) {
    long n = q->classes, most = 0, last = n, found = -1;
    double total = 0, sum = 0;
    for (long i = 0; i < n; i++) {
        if (!(p[i] >= 0)) return -1;
        if (p[i] > p[most]) most = i;
        total += p[i];
    }
    if (!(fabs(total - 1) < 0.01)) return -1;
    if (q->temperature == 0) return most;
    if (q->temperature != 1) {
        total = 0;
        for (long i = 0; i < n; i++) total += w[i] = pow((double)p[i] / p[most], 1 / q->temperature);
    } else {
        for (long i = 0; i < n; i++) w[i] = p[i];
    }
    if (q->top_k < n || q->top_p < 1) {
        last = last_kept(w, total, n, q->top_k, q->top_p, (long *)(w + n));
        double lowest = w[last];
        total = 0;
        for (long i = 0; i < n; i++) total += w[i] = w[i] > lowest || (w[i] == lowest && i <= last) ? w[i] : 0;
    }
    for (long i = 0; i < n; i++) {
        sum += w[i];
        if (w[i] > 0) found = i; /* if rounding leaves the sum too small, the last one that is possible */
        if (sum > uniform * total) break;
    }
    return found;
}

typedef struct {
    steps *q;
    long step;
} drawing;

static void draw_job(void *argument, const team_member *me) {
    drawing *d = argument;
    steps *q = d->q;
    for (long r = share_start(q->rows, me); r < share_end(q->rows, me); r++) {
        const real *p = q->probabilities + r * q->classes;
        long at = d->step * q->rows + r, found = draw(q, p, q->uniform[at], q->scratch + me->index * 2 * q->classes);
        if (found < 0) {
            q->failed = r;
            found = 0;
        }
        q->drawn[at] = found;
        if (q->ids) q->ids[r] = found;
        if (q->log_p) q->log_p[at] = log((double)p[found]);
    }
}

void run_steps(steps *q, long threads) {
    q->failed = -1;
    for (long t = 0; t < q->steps && q->failed < 0; t++) {
        if (q->given) memcpy(q->ids, q->given + t * q->rows, (size_t)q->rows * sizeof(int64_t));
        for (const kernel_call *c = q->call; c < q->call + q->calls; c++) c->run(c->arguments, c->threads);
        for (const state_copy *c = q->copy; c < q->copy + q->copies; c++) memmove(c->to, c->from, (size_t)c->bytes);
        drawing d = {q, t};
        if (q->drawn) team_run(draw_job, &d, q->rows > 1 && q->rows * q->classes > 2000 ? threads : 1);
    }
}

/* A copy as a call that can be noted. */
void copy_bytes(state_copy *c, long threads) {
    (void)threads;
    memmove(c->to, c->from, (size_t)c->bytes);
}
