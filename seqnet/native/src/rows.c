/* Functions of rows: softmax and cross-entropy, embeddings, elementwise functions, norms.
 * Threads divide the rows, or the columns where rows are added, so that results do not depend on their number. */

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

/* The last vector of a row, which may overlap the one before; `mine` marks the lanes that no earlier vector has. */
static inline vreal load_last(const real *x, long n, vmask *mine) {
    real some[LANES], counted[LANES];
    long first = n >= LANES ? LANES - n % LANES : 0, end = n >= LANES ? LANES : n;
    for (long i = 0; i < LANES; i++) counted[i] = i >= first && i < end;
    *mine = (vmask)(load(counted) > splat(0));
    if (n >= LANES) return load(x + n - LANES);
    for (long i = 0; i < LANES; i++) some[i] = i < n ? x[i] : (real)-INFINITY;
    return load(some);
}

static inline void store_last(real *out, long n, vreal v) {
    if (n >= LANES)
        store(out + n - LANES, v);
    else
        memcpy(out, &v, (size_t)n * sizeof(real));
}

static void softmax_job(void *argument, const team_member *me) {
    const softmax_arguments *q = argument;
    long n = q->columns, whole = n / LANES * LANES;
    for (long r = share_start(q->rows, me); r < share_end(q->rows, me); r++) {
        const real *x = q->logits + r * q->logits_row;
        real *out = q->out ? q->out + r * n : NULL;
        vmask mine = {0};
        vreal most = splat((real)-INFINITY), sums = splat(0), last = most;
        if (whole < n) last = most = load_last(x, n, &mine); /* before `out`, which may be x, is written */
        for (long c = 0; c < whole; c += LANES) {
            vreal v = load(x + c);
            most = v_select((vmask)(v > most), v, most);
        }
        real highest = v_largest(most), target = q->targets ? x[q->targets[r]] : 0;
        for (long c = 0; c < whole; c += LANES) {
            vreal v = load(x + c) - highest, e = v_exp_of_negative(v);
            sums += e;
            if (out) store(out + c, q->kind == LOG_SOFTMAX ? v : e);
        }
        if (whole < n) {
            vreal v = last - highest, e = v_exp_of_negative(v);
            sums += v_select(mine, e, splat(0));
            if (out) store_last(out, n, q->kind == LOG_SOFTMAX ? v : e);
        }
        real sum = v_sum(sums), weight = q->weights ? q->weights[r] : 1, log_sum = (real)log((double)sum);
        if (q->kind == CROSS_ENTROPY) q->loss[r] = (log_sum - (target - highest)) * weight;
        if (!out) continue;
        if (q->kind == LOG_SOFTMAX) {
            for (long c = 0; c < n; c++) out[c] -= log_sum;
        } else {
            real scale = weight / sum;
            for (long c = 0; c < n; c++) out[c] *= scale;
        }
        if (q->kind == CROSS_ENTROPY) out[q->targets[r]] -= weight;
    }
}

void softmax(softmax_arguments *q, long threads) {
    team_run(softmax_job, q, q->rows * q->columns < 10000 ? 1 : threads);
}

/* ---- embeddings --------------------------------------------------------------------- */

/* The position of the first id that is not in [0, limit), or -1. */
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

/* Each thread adds every row, in order, but only its own columns. */
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
    long inputs, outputs;
    const long *single; /* (inputs,): 1 for a single number, 0 for an array */
} elementwise_function;

typedef struct {
    long rows, columns;
    real *const *arrays; /* inputs, then outputs */
    const long *steps;   /* from one row to the next, of each array */
} elementwise_call;

typedef struct {
    const elementwise_function *f;
    const elementwise_call *calls;
    long count;
} elementwise_work;

/* Threads divide the rows of each call, or the vectors of a single row. */
static void elementwise_job(void *argument, const team_member *me) {
    const elementwise_work *q = argument;
    const elementwise_function *f = q->f;
    block blocks[2 * MAX_BLOCKS];
    for (const elementwise_call *call = q->calls; call < q->calls + q->count; call++) {
        int one = call->rows == 1;
        long width = one ? LANES : 1, parts = one ? (call->columns + LANES - 1) / LANES : call->rows;
        long start = share_start(parts, me) * width, end = share_end(parts, me) * width;
        if (one) end = min_long(end, call->columns);
        if (end <= start) continue;
        for (long i = 0; i < f->inputs + f->outputs; i++) {
            int single = i < f->inputs && f->single[i];
            long skip = single ? 0 : one ? start : start * call->steps[i];
            blocks[i] = (block){call->arrays[i] + skip, single ? 0 : call->steps[i]};
        }
        f->function(one ? 1 : end - start, one ? end - start : call->columns, blocks, blocks + f->inputs);
    }
}

void elementwise(elementwise_work *q, long threads) {
    long work = 0, arrays = q->f->inputs + q->f->outputs;
    for (long i = 0; i < q->count; i++) work += q->calls[i].rows * q->calls[i].columns * arrays;
    team_run(elementwise_job, q, work < 30000 ? 1 : threads);
}

/* ---- norms ------------------------------------------------------------------------------ */

typedef struct {
    const real *data;
    long size;
    double squares; /* the result */
} norm_arguments;

/* So many numbers are added in vectors, and their sums in double. */
#define CHUNK 4096

/* Squares leave the range of floats long before they leave that of doubles. A sum below this may lack
 * squares that became 0; it is taken again of numbers multiplied by SCALE. */
#define SMALL 1e-30
#define SCALE 0x1p100

static double vector_sum_of_squares(const real *x, long n, real scale) {
    vreal sums[4] = {splat(0), splat(0), splat(0), splat(0)};
    for (long i = 0; i < n; i += 4 * LANES)
        for (long k = 0; k < 4; k++) {
            vreal scaled = load(x + i + k * LANES) * splat(scale);
            sums[k] += scaled * scaled;
        }
    return v_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static double sum_of_squares(const real *x, long n) {
    long i = n - n % (4 * LANES);
    double sum = vector_sum_of_squares(x, i, 1);
    if (sum < SMALL)
        sum = vector_sum_of_squares(x, i, (real)SCALE) / SCALE / SCALE;
    else if (!isfinite(sum))
        for (sum = 0, i = 0; i < n; i++) sum += (double)x[i] * x[i];
    for (; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

void squared_norms(norm_arguments *arrays, long count) {
    for (long i = 0; i < count; i++) {
        arrays[i].squares = 0;
        for (long at = 0; at < arrays[i].size; at += CHUNK)
            arrays[i].squares += sum_of_squares(arrays[i].data + at, min_long(CHUNK, arrays[i].size - at));
    }
}
