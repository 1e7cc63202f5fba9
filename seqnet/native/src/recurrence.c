/* A whole recurrence, forwards and backwards: one job each.
 *
 * At step t the cell takes, for each gate, x (the projected input) and r = h @ U + b, where h is a state or an
 * elementwise function of the states (an "operand"), and returns the new states. It may take other arrays, too: of each
 * step, of all steps, or one row for all. The cell is a generated block function; the rest is here, the same for every
 * cell:
 *
 *   - If each thread gets enough rows of the batch and U fits into the L2 cache, threads divide the rows and need no
 *     synchronization. Otherwise they divide the units. Each computes some units of every gate, so that it needs no other
 *     thread for its own states; the team synchronizes once a step because the next product needs every unit of h.
 *   - U is packed once. Units form groups whose columns of all gates fill whole panels: [gate][unit] of one group are
 *     adjacent, and the cell is applied to a tile while it is in the L1 cache.
 *   - Backwards, a thread's units of dh are the product of every gate's dr with its rows of U, again followed by the
 *     gradient of the cell. The weight gradients are one product each over all steps, at the end.
 *   - Operands that are not a state are computed once the states of the step before are known, and kept for the gradient
 *     of U. Backwards, the gradient of each arrives in a buffer of its own and is passed on to the states.
 *   - The gradient of another array that is the same at all steps is summed over the steps for each row of the batch.
 *   - A cell without a product, whose U is NULL, is in elementwise_recurrence.c unless it has sums over the units.
 *   - Where the mask is False the states keep their values, dx is 0 and gradients pass to the previous step.
 *   - With `bfloat16` the operands of products are rounded: U where it is packed, those of a step where they are known. A
 *     step has its own half of two buffers, so that threads need no further synchronization.
 *
 * Arrays are (time, batch, gates * units) or (time, batch, units), with the last axis contiguous. `saved` has the values
 * that the gradient of the cell needs: (time, saved, batch, units rounded up to vectors).
 */
#define MAX_BLOCKS 160 /* arguments of a block function: checked by the caller */

typedef struct {
    real *data;
    long time_step, batch_step;
} sequence; /* data is NULL if there is none; the steps are 0 where all times or rows have the same values */

typedef struct {
    long time, batch, units, gates, states, saved_values, distinct;
    const long *distinct_slot; /* (gates,): the index in `dr` if dr differs from dx, else -1 */
    block_function *cell, *cell_gradient;
    long others;
    const sequence *other;
    /* The operand of each gate: a number below `states` is a state, then come those that are computed. */
    const long *operand_of; /* (gates,) */
    long computed;
    block_function *compute_operands, *operands_gradient;
    real *operand; /* (computed, operand_slots, batch, units): step t is in slot t % operand_slots */
    long operand_slots;
    long saved_slots;
    const real *recurrent_kernel, *bias; /* (units, gates * units) or NULL; (gates * units,) or NULL */
    const real *const *initial; /* a (batch, units) for each state, or NULLs */
    const unsigned char *mask;
    long mask_time_step, mask_batch_step;
    sequence projected;
    real *const *state; /* a (time, batch, units) for each state, contiguous unless the cell is elementwise */
    long state_time_step, state_batch_step;
    real *saved;
    /* only backwards */
    const sequence *gradient; /* of each state sequence */
    real *const *carried;     /* (batch, units) for each state: in, the gradient of the last state; out, of the initial one */
    sequence d_projected;
    real *dr; /* (time, batch, distinct * units): the gradients of r that are not those of x */
    real *d_kernel, *d_bias;
    long other_sequences, other_sums; /* the others with a gradient: of each step, and of all steps */
    const sequence *d_other;
    real *sums; /* (other_sums, batch, padded): zeros at first */
    long want_initial;
    long bfloat16; /* round the operands of all products */
    real *scratch;
    /* A call that is repeated with the same weights packs U once: for this number of members (0: not yet). */
    long keeps_packed, packed_for;
} recurrence;

static long vector_count(long units) { return (units + LANES - 1) / LANES; }
static long min_long(long a, long b) { return a < b ? a : b; }

/* Vectors of units in a group: the fewest with which all gates fill whole panels. */
static long group_vectors(long gates) {
    long group = TILE_VECTORS;
    while (group > 1 && (gates * group / 2) % TILE_VECTORS == 0) group /= 2;
    return group;
}

/* Vectors of units in a group where the batch is a single row, so that it and one more fit into the memory of a tile. */
#define ROW_VECTORS ((TILE_ROWS + 1L) * TILE_VECTORS / 2)

static const real zeros[ROW_VECTORS * VECTOR_BYTES / sizeof(real)] __attribute__((aligned(64))); /* for any block that is missing */

/* The number of rows, starting at `row`, that have the same mask value. */
static long rows_with_same_mask(const recurrence *q, long t, long row, long end, int *on) {
    const unsigned char *m = q->mask;
    if (!m) return *on = 1, end - row;
    m += t * q->mask_time_step;
    *on = m[row * q->mask_batch_step] != 0;
    long last = row + 1;
    while (last < end && (m[last * q->mask_batch_step] != 0) == *on) last++;
    return last - row;
}

/* The left operand of a product at step t, (batch, units); NULL if it is zero. */
static const real *operand_at(const recurrence *q, long source, long t) {
    long size = q->batch * q->units, slots = q->operand_slots;
    if (source >= q->states) return q->operand + ((source - q->states) * slots + t % slots) * size;
    return t ? q->state[source] + (t - 1) * size : q->initial[source];
}

static int one_operand(const recurrence *q) {
    for (long g = 1; g < q->gates; g++)
        if (q->operand_of[g] != q->operand_of[0]) return 0;
    return 1;
}

static block block_at(const sequence *s, long t, long row, long u) {
    return (block){s->data + t * s->time_step + row * s->batch_step + u, s->batch_step};
}

/* The states before step t */
static block state_before(const recurrence *q, long s, long t, long row, long u) {
    const real *before = t ? q->state[s] + (t - 1) * q->batch * q->units : q->initial[s];
    if (!before) return (block){(real *)zeros, 0};
    return (block){(real *)before + row * q->units + u, q->units};
}

static void copy_rows(long rows, long columns, const real *from, long from_row, real *to, long to_row) {
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < columns; c++) to[r * to_row + c] = from ? from[r * from_row + c] : 0;
}

/* ---- operands that are rounded: words of two numbers, see pairs.h ------------------------------- */

static long words_of_units(const recurrence *q) { return (q->units + 1) / 2; }

/* The words of an operand at step t: (batch, words_of_units) */
static word *operand_words(const recurrence *q, word *words, long source, long t) {
    return words + ((t % 2) * (q->states + q->computed) + source) * q->batch * words_of_units(q);
}

/* ---- division of the work ----------------------------------------------------------------------- */

#define MIN_ROWS 4L /* for each thread */

static int splits_rows(const recurrence *q, long members) {
    long size = q->gates * q->units * q->units * (long)sizeof(real) / (q->bfloat16 ? 2 : 1);
    return members > 1 && q->batch >= members * MIN_ROWS && size <= l2_cache_size / 2;
}

/* A thread's part: rows [row, end) and units [j0, j1), in vectors. It packs U for units [p0, p1), whole groups. */
typedef struct {
    int rows; /* whether threads divide the rows, and all use the packed U */
    long row, end, j0, j1, p0, p1;
} part;

static part part_of(const recurrence *q, const team_member *me, long group) {
    long vectors = vector_count(q->units), groups = (vectors + group - 1) / group;
    if (splits_rows(q, me->count))
        return (part){1, share_start(q->batch, me), share_end(q->batch, me), 0, vectors, share_start(groups, me) * group,
                      min_long(share_end(groups, me) * group, vectors)};
    long j0 = share_start(vectors, me), j1 = share_end(vectors, me);
    return (part){0, 0, q->batch, j0, j1, j0, j1};
}

/* ---- forwards ------------------------------------------------------------------------- */

/* The columns [gate][unit] of one group, in panels of `step` vectors, from (depth, gates * units). */
static void pack_group(const recurrence *q, const real *from, long depth, long j, long group, long step, real *packed) {
    long total = q->gates * group;
    for (long p = 0; p < total; p += step) {
        long vectors = min_long(step, total - p);
        for (long k = 0; k < depth; k++)
            for (long v = p; v < p + vectors; v++, packed += LANES) {
                long unit = (j + v % group) * LANES, width = min_long(LANES, q->units - unit);
                const real *source = from + k * q->gates * q->units + v / group * q->units + unit;
                if (width == LANES)
                    store(packed, load(source));
                else
                    for (long c = 0; c < LANES; c++) packed[c] = c < width ? source[c] : 0;
            }
    }
}

/* pack_group with rounding: panels of words */
static void pack_group_pairs(const recurrence *q, const real *from, long depth, long j, long group, long step, word *packed) {
    long total = q->gates * group, row = q->gates * q->units;
    for (long p = 0; p < total; p += step) {
        long vectors = min_long(step, total - p);
        for (long k = 0; k < depth; k += 2)
            for (long v = p; v < p + vectors; v++, packed += LANES) {
                long unit = (j + v % group) * LANES, width = min_long(LANES, q->units - unit);
                const real *source = from + k * row + v / group * q->units + unit;
                pairs_of_rows(source, k + 1 < depth ? source + row : NULL, width, packed);
                for (long c = width; c < LANES; c++) packed[c] = 0;
            }
    }
}

static real *saved_at(const recurrence *q, long value, long t, long row, long u) {
    long padded = vector_count(q->units) * LANES;
    return q->saved + (((t % q->saved_slots) * q->saved_values + value) * q->batch + row) * padded + u;
}

/* The arguments of the cell; r is in `tile`, whose first row is that of `row`. */
static void cell_inputs(const recurrence *q, long t, long row, long u, long group, const real *tile, block *in) {
    long tile_row = q->gates * group * LANES, n = 0;
    for (long g = 0; g < q->gates; g++) {
        in[n + g] = block_at(&q->projected, t, row, u);
        in[n + g].data += g * q->units;
        in[n + q->gates + g] = (block){(real *)tile + g * group * LANES, tile_row};
    }
    n += 2 * q->gates;
    for (long s = 0; s < q->states; s++) in[n++] = state_before(q, s, t, row, u);
    for (long i = 0; i < q->others; i++) in[n++] = block_at(&q->other[i], t, row, u);
}

/* Apply the cell to rows [row, end) of one group; r is in `tile`. */
static void apply_cell(const recurrence *q, long t, long row, long end, long j, long group, const real *tile) {
    long u = j * LANES, units = q->units, columns = min_long(group * LANES, units - u), padded = vector_count(units) * LANES;
    long tile_row = q->gates * group * LANES, first = row, before = 2 * q->gates;
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    while (row < end) {
        int on;
        long rows = rows_with_same_mask(q, t, row, end, &on), at = (t * q->batch + row) * units + u;
        cell_inputs(q, t, row, u, group, tile + (row - first) * tile_row, in);
        for (long s = 0; s < q->states; s++) {
            const block *old = &in[before + s];
            out[s] = (block){q->state[s] + at, units};
            if (!on) copy_rows(rows, columns, old->row ? old->data : NULL, units, out[s].data, units);
        }
        for (long s = 0; s < q->saved_values; s++)
            out[q->states + s] = (block){saved_at(q, s, t, row, u), padded};
        if (!q->saved) /* not needed: they overwrite one another after the tile */
            for (long s = 0; s < q->saved_values; s++)
                out[q->states + s] = (block){(real *)tile + min_long(TILE_ROWS, q->batch) * tile_row, 0};
        if (on) q->cell(rows, columns, in, out);
        row += rows;
    }
}

/* Compute the operands of step t for a thread's rows and units. */
static void compute_operands(const recurrence *q, const part *my, long t) {
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    for (long j = my->j0; q->computed && j < my->j1; j += TILE_VECTORS) {
        long u = j * LANES, columns = min_long(min_long(j + TILE_VECTORS, my->j1) * LANES, q->units) - u, n = 0;
        for (long s = 0; s < q->states; s++) in[n++] = state_before(q, s, t, my->row, u);
        for (long i = 0; i < q->others; i++) in[n++] = block_at(&q->other[i], t, my->row, u);
        for (long k = 0; k < q->computed; k++)
            out[k] = (block){(real *)operand_at(q, q->states + k, t) + my->row * q->units + u, q->units};
        q->compute_operands(my->end - my->row, columns, in, out);
    }
}

/* Round the operands of step t for a thread's rows and units. */
static void round_operands(const recurrence *q, const part *my, long t, word *words) {
    long u = my->j0 * LANES, width = min_long(my->j1 * LANES, q->units) - u;
    for (long g = 0; g < q->gates; g++) {
        long source = q->operand_of[g], before = 0;
        while (before < g && q->operand_of[before] != source) before++;
        const real *h = operand_at(q, source, t);
        if (before < g || !h || width <= 0) continue;
        word *to = operand_words(q, words, source, t) + u / 2;
        for (long r = my->row; r < my->end; r++) pairs_along(h + r * q->units + u, width, to + r * words_of_units(q));
    }
}

static void forward_job(void *argument, const team_member *me) {
    recurrence *q = argument;
    /* With few rows in total, packing takes longer than it saves: read U in place. */
    long units = q->units, packed_before = q->packed_for == me->count;
    int in_place = q->time * q->batch <= FEW_ROWS && !q->bfloat16 && !q->keeps_packed;
    int one = one_operand(q); /* if not one, panels are of one gate each */
    int by_row = in_place && q->batch == 1 && units % LANES == 0; /* read whole rows of U */
    long most = by_row ? ROW_VECTORS : in_place || !one ? TILE_VECTORS : group_vectors(q->gates);
    long columns = q->gates * units;
    part my = part_of(q, me, most);
    long width = q->gates * LANES; /* columns of one vector of units */
    long tile_size = (TILE_ROWS + 1) * width * TILE_VECTORS;
    long all = q->bfloat16 ? words_of_units(q) : units; /* the depth of a product */
    real *bias = q->scratch, *packed = bias + vector_count(units) * width;
    real *tile = packed + vector_count(units) * width * all + me->index * tile_size;
    word *words = (word *)(packed + vector_count(units) * width * all + me->count * tile_size);
    for (long j = my.p0; j < my.p1 && q->recurrent_kernel && !packed_before; j += most) {
        long group = min_long(most, my.p1 - j);
        if (q->bias) pack_group(q, q->bias, 1, j, group, TILE_VECTORS, bias + j * width);
        if (q->bfloat16)
            pack_group_pairs(q, q->recurrent_kernel, units, j, group, one ? TILE_VECTORS : group,
                             (word *)(packed + j * width * all));
        else if (!in_place || (j + group) * LANES > units)
            pack_group(q, q->recurrent_kernel, units, j, group, one ? TILE_VECTORS : group, packed + j * width * units);
    }
    compute_operands(q, &my, 0);
    if (q->bfloat16) round_operands(q, &my, 0, words);
    if (my.rows || q->computed || q->bfloat16) team_barrier(me);
    tile_table *table = q->bfloat16 ? pair_tiles : tiles;
    for (long t = 0; t < q->time; t++) {
        for (long j = my.j0; j < my.j1; j += most) {
            long group = min_long(most, my.j1 - j), total = q->gates * group;
            int direct = in_place && (j + group) * LANES <= units;
            for (long i = 0; i < tile_count(my.end - my.row); i++) {
                long row = my.row + tile_start(my.end - my.row, i), end = my.row + tile_start(my.end - my.row, i + 1);
                long step = direct || !one ? group : TILE_VECTORS;
                for (long p = 0; p < total; p += step) {
                    long vectors = min_long(step, total - p);
                    long source = q->operand_of[one ? 0 : p / group];
                    const real *h = operand_at(q, source, t);
                    long depth = h && q->recurrent_kernel ? all : 0;
                    const real *b = packed + j * width * all + p * LANES * all;
                    if (direct) b = q->recurrent_kernel + p / group * units + j * LANES;
                    if (by_row) {
                        const real *init = q->bias ? bias + j * width + p * LANES : NULL;
                        row_product(depth, h, 1, b, columns, vectors * LANES, init, tile + p * LANES);
                        continue;
                    }
                    if (q->bfloat16 && h) h = (const real *)operand_words(q, words, source, t);
                    table[vectors - 1][end - row - 1](depth, h + row * all * (h != NULL), all, 1, b,
                                                      direct ? columns : vectors * LANES,
                                                      q->bias ? bias + j * width + p * LANES : NULL, 0,
                                                      tile + p * LANES, total * LANES);
                }
                apply_cell(q, t, row, end, j, group, tile);
            }
        }
        if (t + 1 < q->time) compute_operands(q, &my, t + 1);
        if (t + 1 < q->time && q->bfloat16) round_operands(q, &my, t + 1, words);
        if (!my.rows) team_barrier(me);
    }
    if (me->index == 0 && q->keeps_packed) q->packed_for = me->count; /* all members have passed a barrier */
}

/* ---- backwards ------------------------------------------------------------------------ */

/* Gates with the same operand whose dr are adjacent: one product for all. */
typedef struct {
    sequence dr;
    long column, depth; /* in the columns of U */
    long source;        /* the operand */
} gate_range;

static long gate_ranges(const recurrence *q, gate_range *found) {
    long n = 0;
    for (long g = 0; g < q->gates && q->recurrent_kernel; g++) {
        long d = q->distinct_slot[g];
        sequence s = q->d_projected;
        s.data += g * q->units;
        if (d >= 0) s = (sequence){q->dr + d * q->units, q->batch * q->distinct * q->units, q->distinct * q->units};
        int joins = n && d < 0 && q->distinct_slot[g - 1] < 0 && q->operand_of[g] == q->operand_of[g - 1];
        if (joins)
            found[n - 1].depth += q->units;
        else
            found[n++] = (gate_range){s, g * q->units, q->units, q->operand_of[g]};
    }
    return n;
}

/* U transposed, for columns of dh of one group: (gates * units, vectors * LANES) from the rows of U, a few rows of the
 * result at a time so that they stay in the L1 cache. */
static void pack_transposed(const recurrence *q, long j, long group, real *packed) {
    long columns = q->gates * q->units, width = group * LANES;
    for (long k0 = 0; k0 < columns; k0 += TRANSPOSE_BLOCK)
        for (long c = 0; c < width; c++) {
            const real *from = j * LANES + c < q->units ? q->recurrent_kernel + (j * LANES + c) * columns : NULL;
            for (long k = k0; k < min_long(k0 + TRANSPOSE_BLOCK, columns); k++) packed[k * width + c] = from ? from[k] : 0;
        }
}

/* pack_transposed with rounding. The numbers of a gate are an axis of their own, so that its first one begins a word. */
static void pack_transposed_pairs(const recurrence *q, long j, long group, word *packed) {
    long columns = q->gates * q->units, full = group * LANES, width = min_long(full, q->units - j * LANES);
    for (long g = 0; g < q->gates; g++)
        pack_pairs_transposed(q->recurrent_kernel + j * LANES * columns + g * q->units, columns, q->units, width, full,
                              packed + g * words_of_units(q) * full);
}

/* The words of dr at step t, (batch, gates, words_of_units), and the same rounded for a thread's rows and some units. */
static word *gradient_words(const recurrence *q, word *words, long t) {
    return words + (t % 2) * q->batch * q->gates * words_of_units(q);
}

static void round_gradients(const recurrence *q, const part *my, long t, long j, long width, word *words) {
    for (long g = 0; g < q->gates; g++) {
        long d = q->distinct_slot[g], rest = q->distinct * q->units;
        sequence dr = d < 0 ? q->d_projected : (sequence){q->dr, q->batch * rest, rest};
        word *to = gradient_words(q, words, t) + g * words_of_units(q) + j * LANES / 2;
        block from = block_at(&dr, t, 0, (d < 0 ? g : d) * q->units + j * LANES);
        for (long r = my->row; r < my->end; r++)
            pairs_along(from.data + r * from.row, width, to + r * q->gates * words_of_units(q));
    }
}

/* dh += dr[t] @ U transposed, for some rows of one group. `to` has the gradients of the states, which are added to, and
 * then of the operands that are computed, (batch, padded) each. */
static void add_product(const recurrence *q, const part *my, const gate_range *parts, long n, long t, long group,
                        const real *packed, word *words, real *to, long dh_row) {
    tile_table *table = q->bfloat16 ? pair_tiles : tiles;
    for (long k = q->states; k < q->states + q->computed; k++)
        copy_rows(my->end - my->row, group * LANES, NULL, 0, to + (k * q->batch + my->row) * dh_row, dh_row);
    for (long s = 0; s < n; s++) {
        real *dh = to + parts[s].source * q->batch * dh_row;
        long start = parts[s].column, all = parts[s].depth, a_row = parts[s].dr.batch_step;
        const real *left = parts[s].dr.data + t * parts[s].dr.time_step;
        if (q->bfloat16) {
            start = start / q->units * words_of_units(q), all = all / q->units * words_of_units(q);
            a_row = q->gates * words_of_units(q), left = (const real *)gradient_words(q, words, t) + start;
        }
        for (long k = 0; k < all; k += DEPTH_BLOCK) {
            long depth = min_long(DEPTH_BLOCK, all - k), width = group * LANES;
            const real *a = left + k;
            for (long i = 0, rows = my->end - my->row; i < tile_count(rows); i++) {
                long row = my->row + tile_start(rows, i), height = my->row + tile_start(rows, i + 1) - row;
                table[group - 1][height - 1](depth, a + row * a_row, a_row, 1, packed + (start + k) * width, width,
                                             dh + row * dh_row, dh_row, dh + row * dh_row, dh_row);
            }
        }
    }
}

/* Pass the gradients of the operands of step t + 1 to the states after step t, which are those before it. */
static void pass_operands(const recurrence *q, const part *my, long t, long j, long columns, real *carried) {
    long u = j * LANES, padded = vector_count(q->units) * LANES, n = 0;
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    if (!q->computed) return;
    for (long s = 0; s < q->states; s++) in[n++] = state_before(q, s, t + 1, my->row, u);
    for (long i = 0; i < q->others; i++) in[n++] = block_at(&q->other[i], t + 1, my->row, u);
    for (long k = 0; k < q->states + q->computed; k++) {
        in[n + k] = (block){carried + (k * q->batch + my->row) * padded + u, padded};
        if (k < q->states) out[k] = in[n + k];
    }
    n += q->states + q->computed;
    for (long i = 0; i < q->other_sums; i++)
        in[n + i] = out[q->states + i] = (block){q->sums + (i * q->batch + my->row) * padded + u, padded};
    q->operands_gradient(my->end - my->row, columns, in, out);
}

/* The arguments of the gradient of the cell. `carried` (states, batch, padded) has the gradients of the states. */
static void gradient_inputs(const recurrence *q, long t, long row, long u, real *carried, block *in) {
    long padded = vector_count(q->units) * LANES, n = 0, size = q->batch * q->units;
    for (long g = 0; g < q->gates; g++, n++) {
        in[n] = block_at(&q->projected, t, row, u);
        in[n].data += g * q->units;
    }
    for (long s = 0; s < q->states; s++) in[n++] = state_before(q, s, t, row, u);
    for (long s = 0; s < q->states; s++) in[n++] = (block){q->state[s] + t * size + row * q->units + u, q->units};
    for (long s = 0; s < q->saved_values; s++) in[n++] = (block){saved_at(q, s, t, row, u), padded};
    for (long i = 0; i < q->others; i++) in[n++] = block_at(&q->other[i], t, row, u);
    for (long s = 0; s < q->states; s++) in[n++] = (block){carried + (s * q->batch + row) * padded + u, padded};
    for (long s = 0; s < q->states; s++)
        in[n++] = q->gradient[s].data ? block_at(&q->gradient[s], t, row, u) : (block){(real *)zeros, 0};
    for (long i = 0; i < q->other_sums; i++) in[n++] = (block){q->sums + (i * q->batch + row) * padded + u, padded};
}

/* Apply the gradient of the cell at step t to the rows of one group. `carried` has the gradients of the states after the
 * step, and then of those before it. */
static void apply_gradient(const recurrence *q, const part *my, long t, long j, long columns, real *carried) {
    long u = j * LANES, units = q->units, padded = vector_count(units) * LANES;
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    for (long row = my->row; row < my->end;) {
        int on, m = 0;
        long rows = rows_with_same_mask(q, t, row, my->end, &on);
        gradient_inputs(q, t, row, u, carried, in);
        for (long g = 0; g < q->gates; g++, m++) {
            out[m] = block_at(&q->d_projected, t, row, u);
            out[m].data += g * units;
        }
        for (long d = 0; d < q->distinct; d++)
            out[m++] = (block){q->dr + ((t * q->batch + row) * q->distinct + d) * units + u, q->distinct * units};
        for (long i = 0; i < q->other_sequences; i++) out[m++] = block_at(&q->d_other[i], t, row, u);
        if (!on)
            for (long k = 0; k < m; k++) copy_rows(rows, columns, NULL, 0, out[k].data, out[k].row);
        for (long s = 0; s < q->states; s++) {
            const sequence *d = &q->gradient[s];
            real *now = carried + (s * q->batch + row) * padded + u;
            out[m++] = (block){now, padded};
            if (on || !d->data) continue;
            const real *given = block_at(d, t, row, u).data;
            for (long r = 0; r < rows; r++)
                for (long c = 0; c < columns; c++) now[r * padded + c] += given[r * d->batch_step + c];
        }
        for (long i = 0; i < q->other_sums; i++)
            out[m++] = (block){q->sums + (i * q->batch + row) * padded + u, padded};
        if (on) q->cell_gradient(rows, columns, in, out);
        row += rows;
    }
}

static void backward_job(void *argument, const team_member *me) {
    const recurrence *q = argument;
    long units = q->units, padded = vector_count(units) * LANES, columns = q->gates * units;
    part my = part_of(q, me, TILE_VECTORS);
    long u = my.j0 * LANES, mine = min_long(my.j1 * LANES, units) - u, rows = my.end - my.row;
    real *carried = q->scratch, *packed = carried + (q->states + q->computed) * q->batch * padded;
    gate_range parts[MAX_BLOCKS];
    long n = gate_ranges(q, parts), all = q->bfloat16 ? q->gates * words_of_units(q) : columns;
    word *words = (word *)(packed + padded * all);
    for (long j = my.p0; j < my.p1 && q->recurrent_kernel; j += TILE_VECTORS) {
        long group = min_long(TILE_VECTORS, my.p1 - j);
        if (q->bfloat16)
            pack_transposed_pairs(q, j, group, (word *)(packed + j * LANES * all));
        else
            pack_transposed(q, j, group, packed + j * LANES * columns);
    }
    for (long s = 0; s < q->states; s++) {
        real *dh = carried + (s * q->batch + my.row) * padded + u;
        copy_rows(rows, (my.j1 - my.j0) * LANES, NULL, 0, dh, padded); /* also zeros the padding */
        copy_rows(rows, mine, q->carried[s] + my.row * units + u, units, dh, padded);
    }
    if (my.rows) team_barrier(me);
    for (long t = q->time - 1; t >= (q->want_initial ? -1 : 0); t--) {
        for (long j = my.j0; j < my.j1; j += TILE_VECTORS) {
            long group = min_long(TILE_VECTORS, my.j1 - j);
            long width = min_long(group * LANES, units - j * LANES);
            if (t < q->time - 1) {
                add_product(q, &my, parts, n, t + 1, group, packed + j * LANES * all, words, carried + j * LANES, padded);
                pass_operands(q, &my, t, j, width, carried);
            }
            if (t < 0) continue;
            apply_gradient(q, &my, t, j, width, carried);
            if (q->bfloat16 && q->recurrent_kernel) round_gradients(q, &my, t, j, width, words);
        }
        if (t >= 0 && !my.rows) team_barrier(me);
    }
    for (long s = 0; s < q->states; s++)
        copy_rows(rows, mine, carried + (s * q->batch + my.row) * padded + u, padded, q->carried[s] + my.row * units + u,
                  units);
}

/* d_kernel = sum over t of the operands transposed @ dr[t], and the sums of dr for the bias, for one range of gates at a time */
static void weight_gradients(const recurrence *q, long threads) {
    static const real zero = 0;
    gate_range parts[MAX_BLOCKS];
    long n = gate_ranges(q, parts), columns = q->gates * q->units;
    for (long s = 0; s < n; s++) {
        sequence dr = parts[s].dr;
        int computed = parts[s].source >= q->states;
        const real *h0 = operand_at(q, parts[s].source, 0);
        gemm_arguments g = {.m = q->units, .n = parts[s].depth, .c_row = columns, .scratch = q->scratch};
        g.bfloat16 = q->bfloat16;
        g.c = q->d_kernel + parts[s].column;
        g.k = computed ? q->time * q->batch : q->batch; /* the first step; without initial states a column of zeros, so that sums are set */
        g.a = (gemm_side){h0 ? h0 : &zero, h0 != NULL, h0 ? q->units : 0, h0 ? q->batch * q->units : 0, q->batch};
        g.b = (gemm_side){dr.data, 1, dr.batch_step, dr.time_step, q->batch};
        g.column_sums = q->d_bias ? q->d_bias + parts[s].column : NULL;
        g.first_sums = 1;
        if (!h0 && !g.column_sums) g.k = 0;
        gemm_with_team(&g, threads);
        if (computed) continue;
        g.k = (q->time - 1) * q->batch;
        g.a = (gemm_side){q->state[parts[s].source], 1, q->units, q->batch * q->units, q->batch};
        g.b = (gemm_side){dr.data + dr.time_step, 1, dr.batch_step, dr.time_step, q->batch};
        g.accumulate = 1;
        g.first_sums = 0;
        if (g.k) gemm_with_team(&g, threads);
    }
}

/* Scratch memory, in elements, that is enough for both directions; `operands` counts the states, too. */
long recurrence_scratch(long batch, long units, long gates, long operands, long bfloat16, long threads) {
    long padded = vector_count(units) * LANES, depth = bfloat16 ? (units + 1) / 2 : units;
    long forward = threads * (TILE_ROWS + 1) * gates * PANEL + padded * gates * (depth + 1);
    long backward = padded * (operands * batch + gates * depth), weights = threads * GEMM_SCRATCH;
    if (bfloat16) forward += 2 * batch * operands * depth, backward += 2 * batch * gates * depth;
    long most = forward > backward ? forward : backward;
    return (most > weights ? most : weights) + 64;
}

/* Use fewer threads if the work between two barriers is too short to pay for the barrier. */
static long limit_threads(const recurrence *q, long threads) {
    double step = 2.0 * (double)q->batch * q->units * q->gates * (q->units + 64);
    long by_units = min_long(threads, vector_count(q->units)), by_rows = min_long(threads, q->batch / MIN_ROWS);
    if (by_rows >= by_units && splits_rows(q, by_rows)) return min_long(by_rows, (long)(step * q->time / 4e6) + 1);
    return min_long(by_units, (long)(step / 50e3) + 1);
}

#include "elementwise_recurrence.c"

void recurrence_forward(recurrence *q, long threads) {
    if (!q->recurrent_kernel)
        team_run(elementwise_forward, q, elementwise_threads(q, threads));
    else
        team_run(forward_job, q, limit_threads(q, threads));
}

void recurrence_backward(recurrence *q, long threads) {
    if (!q->recurrent_kernel) {
        team_run(elementwise_backward, q, elementwise_threads(q, threads));
        return;
    }
    team_run(backward_job, q, limit_threads(q, threads));
    if (q->d_kernel) weight_gradients(q, threads);
}
