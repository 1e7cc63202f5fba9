/* A whole recurrence, forwards and backwards: one job each.
 *
 * At step t the cell sees, per gate, x (the projected input) and r = h @ U + b, where h is the first state, and gives the
 * new states. The cell itself is a generated block function; everything else is here, the same for every cell:
 *
 *   - Threads share out the rows of the batch, and none waits for another: as long as each has some rows, and U stays in
 *     its second-level cache. Else they share out the units. Each owns some units of every gate, so it can finish its
 *     own states alone; the team meets once a step because the next product needs every unit of h.
 *   - U is packed once. Units go in groups whose columns of all gates make whole panels: [gate][unit] of one group are
 *     neighbours, and the cell follows the product while a tile is in the first-level cache.
 *   - Backwards, a thread's units of dh are the product of every gate's dr with its rows of U, again followed at once by
 *     the gradient of the cell. The weight gradients are one product each over all steps, at the end.
 *   - Where the mask is False the states keep their values, dx is 0 and gradients pass to the previous step.
 *
 * Arrays are (time, batch, gates * units) or (time, batch, units), the last axis contiguous. `saved` is what the cell
 * wants to keep for its gradient: (time, saved, batch, units rounded up to vectors).
 */
#define MOST_BLOCKS 96 /* arguments of a block function: checked by the caller */

typedef struct {
    real *data;
    long time_step, batch_step;
} sequence; /* data == NULL where there is none */

typedef struct {
    long time, batch, units, gates, states, saved_values, distinct;
    const long *distinct_slot; /* (gates,): where dr differs from dx, its place in `dr`, else -1 */
    block_function *cell, *cell_gradient;
    const real *kernel, *bias; /* (units, gates * units); (gates * units,) or NULL */
    const real *const *initial; /* a (batch, units) for each state, or NULLs */
    const unsigned char *mask;
    long mask_time_step, mask_batch_step;
    sequence projected;
    real *const *state; /* a (time, batch, units) for each state */
    real *saved;
    /* backwards only */
    const sequence *gradient; /* of each state sequence */
    real *const *carried;     /* (batch, units) for each state: the gradient of the last state in, of the initial out */
    sequence d_projected;
    real *dr; /* (time, batch, distinct * units): the gradients of r that are not those of x */
    real *d_kernel, *d_bias;
    long want_initial;
    real *scratch;
} recurrence;

static long vectors_of(long units) { return (units + LANES - 1) / LANES; }
static long smaller(long a, long b) { return a < b ? a : b; }

/* Units, in vectors, of a group: the fewest for which all gates fill whole panels. */
static long group_vectors(long gates) {
    long group = TILE_VECTORS;
    while (group > 1 && (gates * group / 2) % TILE_VECTORS == 0) group /= 2;
    return group;
}

static const real no_numbers[TILE_VECTORS * VECTOR_BYTES / sizeof(real)] __attribute__((aligned(64))); /* zeros that any block may be */

/* Rows from `row` whose mask is the same as that of `row`. */
static long same_mask(const recurrence *q, long t, long row, long end, int *on) {
    const unsigned char *m = q->mask;
    if (!m) return *on = 1, end - row;
    m += t * q->mask_time_step;
    *on = m[row * q->mask_batch_step] != 0;
    long last = row + 1;
    while (last < end && (m[last * q->mask_batch_step] != 0) == *on) last++;
    return last - row;
}

static void copy_rows(long rows, long columns, const real *from, long from_row, real *to, long to_row) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) to[r * to_row + c] = from ? from[r * from_row + c] : 0;
}

/* ---- who does what ----------------------------------------------------------------------- */

#define FEWEST_ROWS 4L /* of a thread */

static int shares_rows(const recurrence *q, long members) {
    long size = q->gates * q->units * q->units * (long)sizeof(real);
    return members > 1 && q->batch >= members * FEWEST_ROWS && size <= second_level_cache / 2;
}

/* A thread's part: rows [row, end) of units [j0, j1), in vectors. U is packed for units [p0, p1), whole groups. */
typedef struct {
    int rows; /* whether the rows are shared out, and U is packed for all */
    long row, end, j0, j1, p0, p1;
} part;

static part part_of(const recurrence *q, const team_member *me, long group) {
    long vectors = vectors_of(q->units), groups = (vectors + group - 1) / group;
    if (shares_rows(q, me->count))
        return (part){1, share_start(q->batch, me), share_end(q->batch, me), 0, vectors, share_start(groups, me) * group,
                      smaller(share_end(groups, me) * group, vectors)};
    long j0 = share_start(vectors, me), j1 = share_end(vectors, me);
    return (part){0, 0, q->batch, j0, j1, j0, j1};
}

/* ---- forwards ------------------------------------------------------------------------- */

/* The columns [gate][unit] of one group, panel after panel, from (depth, gates * units). */
static void pack_group(const recurrence *q, const real *from, long depth, long j, long group, real *packed) {
    long total = q->gates * group;
    for (long p = 0; p < total; p += TILE_VECTORS) {
        long vectors = smaller(TILE_VECTORS, total - p);
        for (long k = 0; k < depth; k++)
            for (long v = p; v < p + vectors; v++, packed += LANES) {
                long unit = (j + v % group) * LANES, width = smaller(LANES, q->units - unit);
                const real *source = from + k * q->gates * q->units + v / group * q->units + unit;
                if (width == LANES)
                    store(packed, load(source));
                else
                    for (long c = 0; c < LANES; c++) packed[c] = c < width ? source[c] : 0;
            }
    }
}

/* The cell on rows [row, end) of one group; r lies in `tile`. */
static void apply_cell(const recurrence *q, long t, long row, long end, long j, long group, const real *tile) {
    long u = j * LANES, units = q->units, columns = smaller(group * LANES, units - u), padded = vectors_of(units) * LANES;
    long tile_row = q->gates * group * LANES, first = row;
    block in[MOST_BLOCKS], out[MOST_BLOCKS];
    while (row < end) {
        int on, n = 0;
        long rows = same_mask(q, t, row, end, &on), at = (t * q->batch + row) * units + u;
        const real *x = q->projected.data + t * q->projected.time_step + row * q->projected.batch_step + u;
        for (long g = 0; g < q->gates; g++) in[n++] = (block){(real *)x + g * units, q->projected.batch_step};
        for (long g = 0; g < q->gates; g++)
            in[n++] = (block){(real *)tile + (row - first) * tile_row + g * group * LANES, tile_row};
        for (long s = 0; s < q->states; s++) {
            const real *before = t ? q->state[s] + at - q->batch * units : q->initial[s];
            if (!t && before) before += row * units + u;
            in[n + s] = before ? (block){(real *)before, units} : (block){(real *)no_numbers, 0};
            out[s] = (block){q->state[s] + at, units};
            if (!on) copy_rows(rows, columns, before, units, out[s].data, units);
        }
        for (long s = 0; s < q->saved_values; s++)
            out[q->states + s] = (block){q->saved + ((t * q->saved_values + s) * q->batch + row) * padded + u, padded};
        if (!q->saved) /* nobody wants them: let them overwrite one another after the tile */
            for (long s = 0; s < q->saved_values; s++)
                out[q->states + s] = (block){(real *)tile + TILE_ROWS * tile_row, 0};
        if (on) q->cell(rows, columns, in, out);
        row += rows;
    }
}

static void forward_job(void *argument, const team_member *me) {
    const recurrence *q = argument;
    /* With few rows in all, packing would cost more than it saves: read U where it lies. */
    int in_place = q->time * q->batch <= FEW_ROWS;
    long most = in_place ? TILE_VECTORS : group_vectors(q->gates), units = q->units, columns = q->gates * units;
    part my = part_of(q, me, most);
    long width = q->gates * LANES; /* columns of one vector of units */
    real *tile = q->scratch + me->index * (TILE_ROWS + 1) * width * TILE_VECTORS;
    real *bias = q->scratch + me->count * (TILE_ROWS + 1) * width * TILE_VECTORS;
    real *packed = bias + vectors_of(units) * width;
    for (long j = my.p0; j < my.p1; j += most) {
        long group = smaller(most, my.p1 - j);
        if (q->bias) pack_group(q, q->bias, 1, j, group, bias + j * width);
        if (!in_place || (j + group) * LANES > units)
            pack_group(q, q->kernel, units, j, group, packed + j * width * units);
    }
    if (my.rows) team_barrier(me);
    for (long t = 0; t < q->time; t++) {
        const real *h = t ? q->state[0] + (t - 1) * q->batch * units : q->initial[0];
        long depth = h ? units : 0;
        for (long j = my.j0; j < my.j1; j += most) {
            long group = smaller(most, my.j1 - j), total = q->gates * group;
            int direct = in_place && (j + group) * LANES <= units;
            for (long i = 0, rows = my.end - my.row; i < tile_count(rows); i++) {
                long row = my.row + tile_start(rows, i), end = my.row + tile_start(rows, i + 1);
                long step = direct ? group : TILE_VECTORS;
                for (long p = 0; p < total; p += step) {
                    long vectors = smaller(step, total - p);
                    const real *b = packed + j * width * units + p * LANES * units;
                    if (direct) b = q->kernel + p / group * units + j * LANES;
                    tiles[vectors - 1][end - row - 1](depth, h + row * units * (h != NULL), units, 1, b,
                                                      direct ? columns : vectors * LANES,
                                                      q->bias ? bias + j * width + p * LANES : NULL, 0,
                                                      tile + p * LANES, total * LANES);
                }
                apply_cell(q, t, row, end, j, group, tile);
            }
        }
        if (!my.rows) team_barrier(me);
    }
}

/* ---- backwards ------------------------------------------------------------------------ */

/* A stretch of the gates whose dr lie side by side, at most DEPTH_BLOCK long: one product a tile. */
typedef struct {
    sequence dr;
    long column, depth; /* in the columns of U */
} stretch;

static long find_stretches(const recurrence *q, stretch *found) {
    long n = 0;
    for (long g = 0; g < q->gates; g++) {
        long d = q->distinct_slot[g];
        sequence s = q->d_projected;
        s.data += g * q->units;
        if (d >= 0) s = (sequence){q->dr + d * q->units, q->batch * q->distinct * q->units, q->distinct * q->units};
        int joins = n && d < 0 && q->distinct_slot[g - 1] < 0;
        if (joins)
            found[n - 1].depth += q->units;
        else
            found[n++] = (stretch){s, g * q->units, q->units};
    }
    return n;
}

/* U transposed, for columns of dh of one group: (gates * units, vectors * LANES) from the rows of U, a few rows of the
 * result at a time so that they stay in the first-level cache. */
static void pack_transposed(const recurrence *q, long j, long group, real *packed) {
    long columns = q->gates * q->units, width = group * LANES;
    for (long k0 = 0; k0 < columns; k0 += TRANSPOSE_BLOCK)
        for (long c = 0; c < width; c++) {
            const real *from = j * LANES + c < q->units ? q->kernel + (j * LANES + c) * columns : NULL;
            for (long k = k0; k < smaller(k0 + TRANSPOSE_BLOCK, columns); k++) packed[k * width + c] = from ? from[k] : 0;
        }
}

/* dh += dr[t] @ U transposed, for some rows of one group */
static void add_product(const part *my, const stretch *parts, long n, long t, long group, const real *packed, real *dh,
                        long dh_row) {
    for (long s = 0; s < n; s++)
        for (long k = 0; k < parts[s].depth; k += DEPTH_BLOCK) {
            long depth = smaller(DEPTH_BLOCK, parts[s].depth - k), width = group * LANES;
            const real *a = parts[s].dr.data + t * parts[s].dr.time_step + k;
            for (long i = 0, rows = my->end - my->row; i < tile_count(rows); i++) {
                long row = my->row + tile_start(rows, i), height = my->row + tile_start(rows, i + 1) - row;
                tiles[group - 1][height - 1](depth, a + row * parts[s].dr.batch_step, parts[s].dr.batch_step, 1,
                                             packed + (parts[s].column + k) * width, width, dh + row * dh_row, dh_row,
                                             dh + row * dh_row, dh_row);
            }
        }
}

/* The gradient of the cell at step t for some rows of one group; `carried` (states, batch, padded) goes from after the
 * step to before it. */
static void apply_gradient(const recurrence *q, const part *my, long t, long j, long columns, real *carried) {
    long u = j * LANES, units = q->units, padded = vectors_of(units) * LANES;
    block in[MOST_BLOCKS], out[MOST_BLOCKS];
    for (long row = my->row; row < my->end;) {
        int on, n = 0, m = 0;
        long rows = same_mask(q, t, row, my->end, &on), at = (t * q->batch + row) * units + u;
        const real *x = q->projected.data + t * q->projected.time_step + row * q->projected.batch_step + u;
        real *dx = q->d_projected.data + t * q->d_projected.time_step + row * q->d_projected.batch_step + u;
        for (long g = 0; g < q->gates; g++) {
            in[n++] = (block){(real *)x + g * units, q->projected.batch_step};
            out[m++] = (block){dx + g * units, q->d_projected.batch_step};
        }
        for (long d = 0; d < q->distinct; d++)
            out[m++] = (block){q->dr + ((t * q->batch + row) * q->distinct + d) * units + u, q->distinct * units};
        if (!on)
            for (long k = 0; k < m; k++) copy_rows(rows, columns, NULL, 0, out[k].data, out[k].row);
        for (long s = 0; s < q->states; s++, n++) {
            const real *before = t ? q->state[s] + at - q->batch * units : q->initial[s];
            if (!t && before) before += row * units + u;
            in[n] = before ? (block){(real *)before, units} : (block){(real *)no_numbers, 0};
        }
        for (long s = 0; s < q->states; s++) in[n++] = (block){q->state[s] + at, units};
        for (long s = 0; s < q->saved_values; s++)
            in[n++] = (block){q->saved + ((t * q->saved_values + s) * q->batch + row) * padded + u, padded};
        for (long s = 0; s < q->states; s++) {
            const sequence *d = &q->gradient[s];
            real *now = carried + (s * q->batch + row) * padded + u;
            in[n + s] = out[m + s] = (block){now, padded};
            in[n + q->states + s] = (block){(real *)no_numbers, 0};
            if (!d->data) continue;
            real *given = d->data + t * d->time_step + row * d->batch_step + u;
            in[n + q->states + s] = (block){given, d->batch_step};
            if (!on)
                for (long r = 0; r < rows; r++)
                    for (long c = 0; c < columns; c++) now[r * padded + c] += given[r * d->batch_step + c];
        }
        if (on) q->cell_gradient(rows, columns, in, out);
        row += rows;
    }
}

static void backward_job(void *argument, const team_member *me) {
    const recurrence *q = argument;
    long units = q->units, padded = vectors_of(units) * LANES, columns = q->gates * units;
    part my = part_of(q, me, TILE_VECTORS);
    long u = my.j0 * LANES, mine = smaller(my.j1 * LANES, units) - u, rows = my.end - my.row;
    real *carried = q->scratch, *packed = carried + q->states * q->batch * padded;
    stretch parts[MOST_BLOCKS];
    long n = find_stretches(q, parts);
    for (long j = my.p0; j < my.p1; j += TILE_VECTORS)
        pack_transposed(q, j, smaller(TILE_VECTORS, my.p1 - j), packed + j * LANES * columns);
    for (long s = 0; s < q->states; s++) {
        real *dh = carried + (s * q->batch + my.row) * padded + u;
        copy_rows(rows, (my.j1 - my.j0) * LANES, NULL, 0, dh, padded); /* what is beyond the units is 0 too */
        copy_rows(rows, mine, q->carried[s] + my.row * units + u, units, dh, padded);
    }
    if (my.rows) team_barrier(me);
    for (long t = q->time - 1; t >= (q->want_initial ? -1 : 0); t--) {
        for (long j = my.j0; j < my.j1; j += TILE_VECTORS) {
            long group = smaller(TILE_VECTORS, my.j1 - j);
            if (t < q->time - 1)
                add_product(&my, parts, n, t + 1, group, packed + j * LANES * columns, carried + j * LANES, padded);
            if (t >= 0) apply_gradient(q, &my, t, j, smaller(group * LANES, units - j * LANES), carried);
        }
        if (t >= 0 && !my.rows) team_barrier(me);
    }
    for (long s = 0; s < q->states; s++)
        copy_rows(rows, mine, carried + (s * q->batch + my.row) * padded + u, padded, q->carried[s] + my.row * units + u,
                  units);
}

/* d_kernel = sum over t of h[t-1] transposed @ dr[t], and the sums of dr for the bias: one stretch of gates at a time */
static void weight_gradients(const recurrence *q, long threads) {
    static const real zero = 0;
    stretch parts[MOST_BLOCKS];
    long n = find_stretches(q, parts), columns = q->gates * q->units;
    for (long s = 0; s < n; s++) {
        sequence dr = parts[s].dr;
        const real *h0 = q->initial[0];
        gemm_arguments g = {.m = q->units, .n = parts[s].depth, .c_row = columns, .scratch = q->scratch};
        g.c = q->d_kernel + parts[s].column;
        g.k = q->batch; /* the first step; without initial states a column of zeros, for the bias and to begin the sums */
        g.a = (gemm_side){h0 ? h0 : &zero, h0 != NULL, h0 ? q->units : 0, 0, q->batch};
        g.b = (gemm_side){dr.data, 1, dr.batch_step, 0, q->batch};
        g.column_sums = q->d_bias ? q->d_bias + parts[s].column : NULL;
        g.first_sums = 1;
        if (!h0 && !g.column_sums) g.k = 0;
        gemm_with_team(&g, threads);
        g.k = (q->time - 1) * q->batch;
        g.a = (gemm_side){q->state[0], 1, q->units, q->batch * q->units, q->batch};
        g.b = (gemm_side){dr.data + dr.time_step, 1, dr.batch_step, dr.time_step, q->batch};
        g.accumulate = 1;
        g.first_sums = 0;
        if (g.k) gemm_with_team(&g, threads);
    }
}

/* Elements of scratch that either direction needs. */
long recurrence_scratch(long batch, long units, long gates, long states, long threads) {
    long padded = vectors_of(units) * LANES;
    long forward = threads * (TILE_ROWS + 1) * gates * PANEL + padded * gates * (units + 1);
    long backward = padded * (states * batch + gates * units), weights = threads * GEMM_SCRATCH;
    long most = forward > backward ? forward : backward;
    return (most > weights ? most : weights) + 64;
}

/* Fewer threads where the work between two meetings is so short that meeting would cost more than the help is worth. */
static long useful_threads(const recurrence *q, long threads) {
    double step = 2.0 * (double)q->batch * q->units * q->gates * (q->units + 64);
    long by_units = smaller(threads, vectors_of(q->units)), by_rows = smaller(threads, q->batch / FEWEST_ROWS);
    if (by_rows >= by_units && shares_rows(q, by_rows)) return smaller(by_rows, (long)(step * q->time / 4e6) + 1);
    return smaller(by_units, (long)(step / 50e3) + 1);
}

void recurrence_forward(recurrence *q, long threads) { team_run(forward_job, q, useful_threads(q, threads)); }

void recurrence_backward(recurrence *q, long threads) {
    team_run(backward_job, q, useful_threads(q, threads));
    if (q->d_kernel) weight_gradients(q, threads);
}
