/* What is done row by row around a recurrence: softmax and its loss, the rows of an embedding, elementwise functions.
 * Threads share out rows (or, where rows are added to one another, columns), so no result depends on their number. */

enum { SOFTMAX, LOG_SOFTMAX, CROSS_ENTROPY };

typedef struct {
    long kind, rows, columns;
    const real *logits;
    long logits_row;
    const int64_t *targets; /* (rows,), for CROSS_ENTROPY */
    const real *weights;    /* (rows,) or NULL: multiply the loss and its gradient */
    real *loss;             /* (rows,) */
    real *out;              /* (rows, columns), contiguous; NULL with CROSS_ENTROPY: the loss alone */
} softmax_arguments;

static inline vreal load_some(const real *p, long lanes, real fill) {
    real some[LANES];
    for (long i = 0; i < LANES; i++) some[i] = i < lanes ? p[i] : fill;
    return load(some);
}

static inline void store_some(real *p, long lanes, vreal x) {
    if (lanes >= LANES)
        store(p, x);
    else
        memcpy(p, &x, (size_t)lanes * sizeof(real));
}

static void softmax_job(void *argument, const team_member *me) {
    const softmax_arguments *q = argument;
    long n = q->columns;
    for (long r = share_start(q->rows, me); r < share_end(q->rows, me); r++) {
        const real *x = q->logits + r * q->logits_row;
        real *out = q->out ? q->out + r * n : NULL;
        vreal most = splat((real)-INFINITY), sums = splat(0);
        for (long c = 0; c < n; c += LANES) {
            vreal v = n - c >= LANES ? load(x + c) : load_some(x + c, n - c, (real)-INFINITY);
            most = v_select((vmask)(v > most), v, most);
        }
        real highest = v_largest(most);
        for (long c = 0; c < n; c += LANES) {
            vreal v = n - c >= LANES ? load(x + c) : load_some(x + c, n - c, (real)-INFINITY);
            vreal e = v_exp_of_negative(v - highest);
            sums += e;
            if (out) store_some(out + c, n - c, q->kind == LOG_SOFTMAX ? v - highest : e);
        }
        real sum = v_sum(sums), weight = q->weights ? q->weights[r] : 1, log_sum = (real)log((double)sum);
        if (q->kind == CROSS_ENTROPY) q->loss[r] = (log_sum - (x[q->targets[r]] - highest)) * weight;
        if (!out) continue;
        if (q->kind == LOG_SOFTMAX)
            for (long c = 0; c < n; c++) out[c] -= log_sum;
        else
            for (long c = 0; c < n; c++) out[c] *= weight / sum;
        if (q->kind == CROSS_ENTROPY) out[q->targets[r]] -= weight;
    }
}

void softmax(softmax_arguments *q, long threads) {
    team_run(softmax_job, q, q->rows * q->columns < 10000 ? 1 : threads);
}

/* ---- embeddings --------------------------------------------------------------------- */

/* The place of the first id that is not in [0, limit), or -1. */
long first_outside(const int64_t *ids, long count, long limit) {
    for (long i = 0; i < count; i++)
        if ((uint64_t)ids[i] >= (uint64_t)limit) return i;
    return -1;
}

typedef struct {
    long count, width, vocabulary;
    const int64_t *ids;
    real *table; /* (vocabulary, width) */
    real *rows;  /* (count, width) */
} embedding_arguments;

static void gather_job(void *argument, const team_member *me) {
    const embedding_arguments *q = argument;
    for (long i = share_start(q->count, me); i < share_end(q->count, me); i++)
        memcpy(q->rows + i * q->width, q->table + q->ids[i] * q->width, (size_t)q->width * sizeof(real));
}

/* Each thread adds every row, in order, but only its own columns of it. */
static void scatter_job(void *argument, const team_member *me) {
    const embedding_arguments *q = argument;
    long vectors = (q->width + LANES - 1) / LANES;
    long c0 = share_start(vectors, me) * LANES, c1 = share_end(vectors, me) * LANES;
    if (c1 > q->width) c1 = q->width;
    if (c0 >= c1) return;
    for (long v = 0; v < q->vocabulary; v++) memset(q->table + v * q->width + c0, 0, (size_t)(c1 - c0) * sizeof(real));
    for (long i = 0; i < q->count; i++) {
        real *to = q->table + q->ids[i] * q->width;
        const real *from = q->rows + i * q->width;
        long c = c0;
        for (; c + LANES <= c1; c += LANES) store(to + c, load(to + c) + load(from + c));
        for (; c < c1; c++) to[c] += from[c];
    }
}

void gather(embedding_arguments *q, long threads) { team_run(gather_job, q, q->count * q->width < 20000 ? 1 : threads); }
void scatter_add(embedding_arguments *q, long threads) {
    team_run(scatter_job, q, (q->count + q->vocabulary) * q->width < 20000 ? 1 : threads);
}

/* ---- elementwise functions ------------------------------------------------------------ */

typedef struct {
    block_function *function;
    long rows, columns, inputs, outputs;
    const block *in, *out; /* `row` is 0 for a single number */
} elementwise_arguments;

/* Contiguous arrays are one long row, which threads share out by vectors; else they share the rows. */
static void elementwise_job(void *argument, const team_member *me) {
    const elementwise_arguments *q = argument;
    block in[MOST_BLOCKS], out[MOST_BLOCKS];
    long parts = q->rows == 1 ? (q->columns + LANES - 1) / LANES : q->rows;
    long start = share_start(parts, me), end = share_end(parts, me);
    if (end <= start) return;
    long column = q->rows == 1 ? start * LANES : 0, row = q->rows == 1 ? 0 : start;
    long stop = q->rows == 1 && end < parts ? end * LANES : q->columns;
    for (long i = 0; i < q->inputs; i++) {
        long skip = q->in[i].row ? q->in[i].row * row + column : 0;
        in[i] = (block){q->in[i].data + skip, q->in[i].row};
    }
    for (long i = 0; i < q->outputs; i++) {
        long skip = q->out[i].row * row + column;
        out[i] = (block){q->out[i].data + skip, q->out[i].row};
    }
    q->function(q->rows == 1 ? 1 : end - start, stop - column, in, out);
}

void elementwise(elementwise_arguments *q, long threads) {
    long work = q->rows * q->columns * (q->inputs + q->outputs);
    team_run(elementwise_job, q, work < 60000 ? 1 : threads);
}
