/* Connectionist temporal classification: minus the log probability of labels, and its derivative by the logits.
 *
 * The equations are those of seqnet/ops/ctc.py. Threads divide the rows of the batch. States are vectors: rows of states
 * have one more vector before them and one after, so that states before the first and after the last can be read. */

typedef struct {
    long batch, time, classes, length, blank, width, scratch_size;
    const real *logits; /* (batch, time, classes) by two steps; the last axis is contiguous */
    long logits_batch, logits_time;
    const unsigned char *mask; /* (batch, time) */
    const int64_t *labels;     /* (batch, length) */
    const int64_t *lengths;    /* (batch,) */
    real *loss;                /* (batch,) */
    real *slope;               /* (batch, time, classes), or NULL */
    real *scratch;             /* (threads, scratch_size): 2 + 3 rows of width, and two rows of width for each step */
} ctc;

static void fill(real *x, long n, real value) {
    for (long i = 0; i < n; i++) x[i] = value;
}

/* The logarithm of the sum of exponentials. */
static inline real log_sum_of(const real *x, long n) {
    long whole = n / LANES * LANES;
    vmask mine = {0};
    vreal most = splat((real)-INFINITY), sums = splat(0), last = most;
    if (whole < n) last = most = load_last(x, n, &mine);
    for (long c = 0; c < whole; c += LANES) most = v_maximum(load(x + c), most);
    real highest = v_largest(most);
    for (long c = 0; c < whole; c += LANES) sums += v_exp_of_negative(load(x + c) - highest);
    if (whole < n) sums += v_select(mine, v_exp_of_negative(last - highest), splat(0));
    return highest + (real)log((double)v_sum(sums));
}

static void ctc_row(const ctc *q, long row, real *scratch) {
    long count = q->lengths[row], states = 2 * count + 1, width = q->width, steps = 0, vectors = vector_count(states) * LANES;
    const int64_t *labels = q->labels + row * q->length;
    const unsigned char *mask = q->mask + row * q->time;
    /* `skip` is added to a move from two states before; `emit` has log probabilities at one step */
    real *skip = scratch + LANES, *emit = skip + width, *p = emit + width, *next = p + width;
    real *first = next + width; /* then for each step a row of scores and one of `inner` */
    double total = 0;
    fill(scratch, 4 * width, LOWEST);
    for (long s = 3; s < states; s += 2)
        if (labels[s / 2] != labels[s / 2 - 1]) skip[s] = 0;
    for (long t = 0; t < q->time; t++) {
        if (!mask[t]) continue;
        const real *x = q->logits + row * q->logits_batch + t * q->logits_time;
        real *score = first + 2 * steps * width, *inner = score + width;
        const real *before = score - 2 * width;
        real normalizer = log_sum_of(x, q->classes);
        real blank = x[q->blank] - normalizer;
        for (long s = 0; s < states; s += 2) emit[s] = blank;
        for (long s = 1; s < states; s += 2) emit[s] = x[labels[s / 2]] - normalizer;
        fill(score - LANES, width, LOWEST);
        fill(inner - LANES, width, LOWEST);
        vreal highest = splat(-INFINITY);
        if (!steps) {
            for (long s = 0; s < states && s < 2; s++) score[s] = emit[s];
            highest = splat(states > 1 && score[1] > score[0] ? score[1] : score[0]);
        } else {
            for (long s = 0; s < vectors; s += LANES) {
                vreal stay = load(before + s), move = load(before + s - 1), jump = load(before + s - 2) + load(skip + s);
                vreal most = v_maximum(v_maximum(stay, move), jump);
                vreal sum = v_exp_of_negative(stay - most) + v_exp_of_negative(move - most) + v_exp_of_negative(jump - most);
                vreal reached = most + v_log_of_sum(sum), now = reached + load(emit + s);
                store(inner + s, reached);
                store(score + s, now);
                highest = v_maximum(now, highest);
            }
        }
        real shift = v_largest(highest);
        total += shift;
        for (long s = 0; s < vectors; s += LANES) store(score + s, load(score + s) - shift);
        steps++;
    }
    if (q->slope) memset(q->slope + row * q->time * q->classes, 0, (size_t)(q->time * q->classes) * sizeof(real));
    if (!steps) {
        q->loss[row] = count ? (real)INFINITY : 0;
        return;
    }
    const real *last = first + 2 * (steps - 1) * width;
    real a = last[states - 1], b = states > 1 ? last[states - 2] : LOWEST, most = b > a ? b : a;
    real end = most + (real)log(exp((double)(a - most)) + exp((double)(b - most)));
    int possible = !(end <= LOWEST / 2); /* NaN stays NaN */
    q->loss[row] = possible ? (real)-(total + end) : (real)INFINITY;
    if (!q->slope || !possible) return;

    /* `p` has the probability of each state given all steps. */
    fill(p - LANES, 2 * width, 0);
    p[states - 1] = (real)exp((double)(a - end));
    if (states > 1) p[states - 2] = (real)exp((double)(b - end));
    for (long t = q->time - 1; t >= 0; t--) {
        if (!mask[t]) continue;
        steps--;
        const real *x = q->logits + row * q->logits_batch + t * q->logits_time;
        const real *inner = first + 2 * steps * width + width, *before = inner - 3 * width;
        real *out = q->slope + (row * q->time + t) * q->classes, normalizer = log_sum_of(x, q->classes);
        long c = 0;
        for (; c + LANES <= q->classes; c += LANES) store(out + c, v_exp(load(x + c) - normalizer));
        if (c < q->classes) {
            real rest[LANES];
            for (long i = 0; i < LANES; i++) rest[i] = c + i < q->classes ? x[c + i] - normalizer : 0;
            store(rest, v_exp(load(rest)));
            memcpy(out + c, rest, (size_t)(q->classes - c) * sizeof(real));
        }
        for (long s = 0; s < states; s += 2) out[q->blank] -= p[s];
        for (long s = 1; s < states; s += 2) out[labels[s / 2]] -= p[s];
        if (!steps) break;
        for (long s = 0; s < vectors; s += LANES) {
            vreal from = load(before + s), sum = splat(0);
            for (long by = 0; by < 3; by++) {
                vreal share = from - load(inner + s + by);
                if (by == 2) share += load(skip + s + by);
                sum += load(p + s + by) * v_exp_of_negative(v_minimum(share, splat(0)));
            }
            store(next + s, sum);
        }
        memcpy(p, next, (size_t)vectors * sizeof(real));
    }
}

static void ctc_job(void *argument, const team_member *me) {
    const ctc *q = argument;
    for (long row = share_start(q->batch, me); row < share_end(q->batch, me); row++)
        ctc_row(q, row, q->scratch + me->index * q->scratch_size);
}

void ctc_loss(ctc *q, long threads) { team_run(ctc_job, q, threads); }
