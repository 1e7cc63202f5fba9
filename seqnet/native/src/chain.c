/* Sums over all paths of a linear chain of classes, their gradient, and the best path.
 *
 * The equations are those of seqnet/ops/chain.py. Threads divide the rows of the batch. Gradients that are sums over rows
 * are summed in groups of rows, whose number does not depend on that of the threads, so that results do not either.
 * Classes are vectors: `padded` is their number rounded up to whole vectors. */

#define LOWEST REAL(-1e30) /* instead of minus infinity: differences of it are numbers */

typedef struct {
    long batch, time, classes, padded, groups, scratch_size;
    const real *scores; /* (batch, time, classes) by two steps; the last axis is contiguous */
    long scores_batch, scores_time;
    const unsigned char *mask; /* (batch, time) */
    const real *transitions;   /* (classes, padded), zero beyond the classes, as are the next two */
    const real *start, *end;   /* (padded,) */
    const int64_t *tags;       /* (batch, time), or NULL */
    const real *gradient;      /* (batch,) */
    real *log_p;               /* (batch, time, classes) */
    real *value;               /* (batch,) */
    real *result;              /* (batch, time, classes): d_scores, or the best path */
    real *d_transitions;       /* (groups, classes, padded), and the next two (groups, padded); zero at first */
    real *d_start, *d_end;
    real *scratch; /* (threads, scratch_size) */
} chain;

static inline vreal v_log_of_sum(vreal sum) { /* the sum of exp(x - max x) is at least 1, or NaN */
    return v_select(v_isnan(sum), sum, v_log(sum));
}

/* Subtracts the logarithm of the sum of exponentials, and returns it. */
static inline real normalize(real *x, long n) {
    vreal most = load(x), sums = splat(0);
    for (long c = LANES; c < n; c += LANES) most = v_maximum(load(x + c), most);
    real highest = v_largest(most);
    for (long c = 0; c < n; c += LANES) sums += v_exp_of_negative(load(x + c) - highest);
    real total = highest + (real)log((double)v_sum(sums));
    for (long c = 0; c < n; c += LANES) store(x + c, load(x + c) - total);
    return total;
}

/* The scores of a step, LOWEST beyond the classes. */
static inline void read_scores(const chain *q, long row, long t, real *to) {
    memcpy(to, q->scores + row * q->scores_batch + t * q->scores_time, (size_t)q->classes * sizeof(real));
    for (long c = q->classes; c < q->padded; c++) to[c] = LOWEST;
}

static void chain_forward_row(const chain *q, long row, real *scratch) {
    long classes = q->classes, padded = q->padded, before = -1, last = -1;
    real *s = scratch, *now = scratch + padded;
    const real *log_p = NULL;
    double total = 0;
    for (long t = 0; t < q->time; t++) {
        real *out = q->log_p + (row * q->time + t) * classes;
        if (!q->mask[row * q->time + t]) {
            if (log_p)
                memcpy(out, log_p, (size_t)classes * sizeof(real));
            else
                memset(out, 0, (size_t)classes * sizeof(real));
            continue;
        }
        read_scores(q, row, t, s);
        for (long c = 0; c < padded; c += LANES) {
            vreal inner;
            if (last < 0) {
                inner = load(q->start + c);
            } else {
                vreal most = log_p[0] + load(q->transitions + c), sum = splat(0);
                for (long i = 1; i < classes; i++) most = v_maximum(log_p[i] + load(q->transitions + i * padded + c), most);
                for (long i = 0; i < classes; i++)
                    sum += v_exp_of_negative(log_p[i] + load(q->transitions + i * padded + c) - most);
                inner = most + v_log_of_sum(sum);
            }
            store(now + c, load(s + c) + inner);
        }
        real step = normalize(now, padded);
        if (q->tags) {
            long tag = q->tags[row * q->time + t];
            total += step - s[tag] - (last < 0 ? q->start[tag] : q->transitions[before * padded + tag]);
            before = tag;
        } else
            total += step;
        memcpy(out, now, (size_t)classes * sizeof(real));
        log_p = out;
        last = t;
    }
    if (last >= 0) {
        for (long c = 0; c < classes; c++) s[c] = log_p[c] + q->end[c];
        for (long c = classes; c < padded; c++) s[c] = LOWEST;
        total += normalize(s, padded) - (q->tags ? q->end[before] : 0);
    }
    q->value[row] = (real)total;
}

static void chain_backward_row(const chain *q, long row, long group, real *scratch) {
    long classes = q->classes, padded = q->padded, later = -1;
    real *p = scratch, *sums = p + padded, *joint = sums + classes * LANES, gradient = q->gradient[row];
    real *d_transitions = q->d_transitions + group * classes * padded;
    real *d_start = q->d_start + group * padded, *d_end = q->d_end + group * padded;
    const unsigned char *mask = q->mask + row * q->time;
    const real *log_p = q->log_p + row * q->time * classes;
    long first = 0, last = q->time - 1;
    while (last >= 0 && !mask[last]) last--;
    while (first < last && !mask[first]) first++;
    memset(q->result + row * q->time * classes, 0, (size_t)(q->time * classes) * sizeof(real));
    if (last < 0) return;
    for (long c = 0; c < classes; c++) p[c] = log_p[last * classes + c] + q->end[c];
    for (long c = classes; c < padded; c++) p[c] = LOWEST;
    normalize(p, padded);
    for (long c = 0; c < padded; c += LANES) store(p + c, v_exp(load(p + c)) * gradient);
    for (long t = last; t >= first; t--) {
        if (!mask[t]) continue;
        real *out = q->result + (row * q->time + t) * classes;
        memcpy(out, p, (size_t)classes * sizeof(real));
        if (q->tags) {
            long tag = q->tags[row * q->time + t];
            out[tag] -= gradient;
            if (t < last) d_transitions[tag * padded + later] -= gradient;
            later = tag;
        }
        if (t == last)
            for (long c = 0; c < classes; c++) d_end[c] += out[c];
        if (t == first) {
            for (long c = 0; c < classes; c++) d_start[c] += out[c];
            break;
        }
        const real *before = log_p + (t - 1) * classes; /* masked steps repeat the step before */
        memset(sums, 0, (size_t)(classes * LANES) * sizeof(real));
        for (long c = 0; c < padded; c += LANES) {
            vreal most = before[0] + load(q->transitions + c), sum = splat(0);
            for (long i = 1; i < classes; i++) most = v_maximum(before[i] + load(q->transitions + i * padded + c), most);
            for (long i = 0; i < classes; i++) {
                vreal e = v_exp_of_negative(before[i] + load(q->transitions + i * padded + c) - most);
                store(joint + i * LANES, e);
                sum += e;
            }
            vreal share = load(p + c) / sum;
            for (long i = 0; i < classes; i++) {
                vreal pair = load(joint + i * LANES) * share;
                real *to = d_transitions + i * padded + c;
                store(to, load(to) + pair);
                store(sums + i * LANES, load(sums + i * LANES) + pair);
            }
        }
        for (long i = 0; i < classes; i++) p[i] = v_sum(load(sums + i * LANES));
    }
}

/* `log_p` has the best scores up to each step. The path is found backwards from the same sums. */
static void chain_best_row(const chain *q, long row, real *scratch) {
    long classes = q->classes, padded = q->padded, last = -1;
    real *s = scratch, *now = scratch + padded, *best = now + padded; /* (time, classes) */
    const unsigned char *mask = q->mask + row * q->time;
    real *out = q->result + row * q->time * classes;
    memset(out, 0, (size_t)(q->time * classes) * sizeof(real));
    for (long t = 0; t < q->time; t++) {
        if (!mask[t]) continue;
        const real *before = best + last * classes;
        read_scores(q, row, t, s);
        vreal highest = splat(-INFINITY);
        for (long c = 0; c < padded; c += LANES) {
            vreal most;
            if (last < 0) {
                most = load(q->start + c);
            } else {
                most = before[0] + load(q->transitions + c);
                for (long i = 1; i < classes; i++) most = v_maximum(before[i] + load(q->transitions + i * padded + c), most);
            }
            most += load(s + c);
            store(now + c, most);
            highest = v_maximum(most, highest);
        }
        real top = v_largest(highest);
        for (long c = 0; c < classes; c++) best[t * classes + c] = now[c] - top;
        for (long k = last + 1; last >= 0 && k < t; k++)
            memcpy(best + k * classes, best + last * classes, (size_t)classes * sizeof(real));
        last = t;
    }
    long tag = -1;
    for (long t = last; t >= 0; t--) {
        if (!mask[t]) continue;
        long previous = tag, found = 0;
        real most = -INFINITY;
        for (long c = 0; c < classes; c++) {
            real score = best[t * classes + c] + (previous < 0 ? q->end[c] : q->transitions[c * padded + previous]);
            if (score > most) most = score, found = c;
        }
        out[t * classes + found] = 1;
        tag = found;
    }
}

static void chain_forward_job(void *argument, const team_member *me) {
    const chain *q = argument;
    for (long row = share_start(q->batch, me); row < share_end(q->batch, me); row++)
        chain_forward_row(q, row, q->scratch + me->index * q->scratch_size);
}

static void chain_best_job(void *argument, const team_member *me) {
    const chain *q = argument;
    for (long row = share_start(q->batch, me); row < share_end(q->batch, me); row++)
        chain_best_row(q, row, q->scratch + me->index * q->scratch_size);
}

static void chain_backward_job(void *argument, const team_member *me) {
    const chain *q = argument;
    for (long group = share_start(q->groups, me); group < share_end(q->groups, me); group++)
        for (long row = q->batch * group / q->groups; row < q->batch * (group + 1) / q->groups; row++)
            chain_backward_row(q, row, group, q->scratch + me->index * q->scratch_size);
}

void chain_forward(chain *q, long threads) { team_run(chain_forward_job, q, threads); }
void chain_backward(chain *q, long threads) { team_run(chain_backward_job, q, threads); }
void chain_best(chain *q, long threads) { team_run(chain_best_job, q, threads); }
