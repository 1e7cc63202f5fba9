/* A recurrence whose step is a list of instructions: elementwise functions, sums over columns, and products with any
 * number of matrices, of what the step has computed before. States, inputs and results may have any size.
 *
 *   - Every value is a `place`: an address that depends on the step and on the row of the batch. Histories have a slot for
 *     each step; values that only one step needs have a single slot.
 *   - Rows do not depend on each other. Threads divide them, and each runs all steps of a block of its rows, which stays in
 *     the cache, without any synchronization. Results therefore do not depend on the number of threads.
 *   - Matrices are packed once, by all threads. Gradients of matrices are products over all steps at the end.
 *   - Where the mask is False, functions are not run. An output is then the sum of two other places, such as the state
 *     before, or zero; or it keeps its value.
 */
#define MAX_PLACES 160 /* arguments of a function: checked by the caller */
#define BLOCK_ROWS (5L * TILE_ROWS)

typedef struct {
    real *data;
    long time_step, slots, shift, row_step; /* step t is in slot (t + shift) % slots */
} place;

enum { KEEPS = -2, NOTHING = -1 }; /* in the first and in any entry of `masked` */

typedef struct {
    block_function *function; /* NULL: a product of in[0], to out[0] */
    long columns;             /* 0: a function of values with one number for each row */
    long inputs, outputs;
    const long *in, *out; /* numbers of places */
    const long *masked;   /* two numbers of places for each output; see above */
    long matrix, accumulate;
} instruction;

typedef struct {
    const real *data;
    long row_step, depth, columns, transposed;
    const real *bias; /* (columns,) or NULL */
    real *packed, *packed_bias;
} matrix;

typedef struct {
    long operand, gradient; /* places */
    long rows, columns;
    real *to; /* added to */
    long to_row;
    real *column_sums; /* added to, or NULL */
} weight_gradient;

typedef struct {
    long time, batch, backwards;
    long instructions;
    const instruction *instruction;
    const place *place;
    const unsigned char *mask;
    long mask_time_step, mask_batch_step;
    long matrices;
    const matrix *matrix;
    long weights;
    const weight_gradient *weight;
    real *scratch;
    double operations; /* in total: how many threads pay for being started */
} program;

static real *place_at(const place *p, long t, long row) {
    return p->data + (t + p->shift) % p->slots * p->time_step + row * p->row_step;
}

/* The number of rows, starting at `row`, that have the same mask value. */
static long same_mask(const program *p, long t, long row, long end, int *on) {
    const unsigned char *m = p->mask;
    if (!m) return *on = 1, end - row;
    m += t * p->mask_time_step;
    *on = m[row * p->mask_batch_step] != 0;
    long last = row + 1;
    while (last < end && (m[last * p->mask_batch_step] != 0) == *on) last++;
    return last - row;
}

static void fill_masked(const program *p, const instruction *i, long t, long row, long rows) {
    for (long k = 0; k < i->outputs; k++) {
        long first = i->masked[2 * k], second = i->masked[2 * k + 1], columns = i->columns ? i->columns : 1;
        if (first == KEEPS) continue;
        for (long r = row; r < row + rows; r++) {
            real *to = place_at(&p->place[i->out[k]], t, r);
            const real *a = first < 0 ? NULL : place_at(&p->place[first], t, r);
            const real *b = second < 0 ? NULL : place_at(&p->place[second], t, r);
            for (long c = 0; c < columns; c++) to[c] = (a ? a[c] : 0) + (b ? b[c] : 0);
        }
    }
}

static void run_function(const program *p, const instruction *i, long t, long row, long end) {
    block in[MAX_PLACES], out[MAX_PLACES];
    while (row < end) {
        int on;
        long rows = same_mask(p, t, row, end, &on);
        if (on) {
            for (long k = 0; k < i->inputs; k++)
                in[k] = (block){place_at(&p->place[i->in[k]], t, row), p->place[i->in[k]].row_step};
            for (long k = 0; k < i->outputs; k++)
                out[k] = (block){place_at(&p->place[i->out[k]], t, row), p->place[i->out[k]].row_step};
            if (i->columns)
                i->function(rows, i->columns, in, out);
            else
                i->function(1, rows, in, out);
        } else
            fill_masked(p, i, t, row, rows);
        row += rows;
    }
}

static long panel_count(const matrix *m) {
    long width = m->transposed ? m->depth : m->columns;
    return (width + PANEL - 1) / PANEL;
}

/* A panel of the matrix, or of its transpose: (depth, vectors * LANES), with zeros beyond the width. */
static void pack_panel(const matrix *m, long panel) {
    long width = m->transposed ? m->depth : m->columns, depth = m->transposed ? m->columns : m->depth;
    long from = panel * PANEL, columns = width - from < PANEL ? width - from : PANEL;
    gemm_side side = {m->data, m->transposed ? m->row_step : 1, m->transposed ? 1 : m->row_step, 0, depth + 1};
    pack_b(&side, 0, depth, from, columns, m->packed + from * depth);
    if (m->bias)
        for (long c = from; c < from + PANEL; c++) m->packed_bias[c] = c < width ? m->bias[c] : 0;
}

static void run_product(const program *p, const instruction *i, long t, long row, long end) {
    const matrix *m = &p->matrix[i->matrix];
    const place *from = &p->place[i->in[0]], *result = &p->place[i->out[0]];
    long width = m->transposed ? m->depth : m->columns, depth = m->transposed ? m->columns : m->depth;
    const real *a = place_at(from, t, row);
    real *c = place_at(result, t, row);
    for (long j = 0; j < width; j += PANEL) {
        long columns = width - j < PANEL ? width - j : PANEL, vectors = (columns + LANES - 1) / LANES;
        for (long k = 0; k < tile_count(end - row); k++) {
            long first = tile_start(end - row, k), height = tile_start(end - row, k + 1) - first;
            real *to = c + first * result->row_step + j;
            const real *init = i->accumulate ? to : m->bias ? m->packed_bias + j : NULL;
            tiles[vectors - 1][height - 1](depth, a + first * from->row_step, from->row_step, 1, m->packed + j * depth,
                                           vectors * LANES, init, i->accumulate ? result->row_step : 0, to,
                                           result->row_step);
        }
    }
}

static void program_job(void *argument, const team_member *me) {
    const program *p = argument;
    for (long n = 0; n < p->matrices; n++)
        for (long panel = me->index; panel < panel_count(&p->matrix[n]); panel += me->count) pack_panel(&p->matrix[n], panel);
    team_barrier(me);
    long first = share_start(p->batch, me), mine = share_end(p->batch, me) - first;
    long blocks = (mine + BLOCK_ROWS - 1) / BLOCK_ROWS;
    for (long b = 0; b < blocks; b++) {
        long row = first + mine * b / blocks, end = first + mine * (b + 1) / blocks;
        for (long step = 0; step < p->time; step++) {
            long t = p->backwards ? p->time - 1 - step : step;
            for (const instruction *i = p->instruction; i < p->instruction + p->instructions; i++)
                if (i->function)
                    run_function(p, i, t, row, end);
                else
                    run_product(p, i, t, row, end);
        }
    }
}

static gemm_side side_of(const program *p, long number) {
    const place *s = &p->place[number];
    return (gemm_side){s->data, 1, s->row_step, s->time_step, p->batch};
}

/* Run all steps, on no more threads than pay for starting them, and then the gradients of the matrices. */
void run_program(program *p, long threads) {
    long by_rows = p->batch < threads ? p->batch : threads, by_work = (long)(p->operations / 4e6) + 1;
    team_run(program_job, p, by_rows < by_work ? by_rows : by_work);
    for (const weight_gradient *w = p->weight; w < p->weight + p->weights; w++) {
        gemm_arguments g = {.m = w->rows, .n = w->columns, .k = p->time * p->batch, .c = w->to, .c_row = w->to_row};
        g.a = side_of(p, w->operand);
        g.b = side_of(p, w->gradient);
        g.column_sums = w->column_sums;
        g.accumulate = 1;
        g.scratch = p->scratch;
        gemm_with_team(&g, threads);
    }
}
