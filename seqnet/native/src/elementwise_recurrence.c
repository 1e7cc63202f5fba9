/* A recurrence whose cell has no product with a recurrent kernel and no sums over the units; included in recurrence.c.
 *
 * No unit of a row depends on another one. Threads divide the rows, or the units of all rows, and need no synchronization.
 * The rows of the blocks are the steps of one row of the batch: one call of the cell computes all steps up to the next
 * change of the mask, reads each state where the step before wrote it, and passes through every array from its beginning to
 * its end. Nothing is saved: the gradient computes the values of the step again.
 */
static part own_part(const recurrence *q, const team_member *me) {
    long vectors = vector_count(q->units);
    if (q->batch % me->count == 0 || q->batch >= 4 * me->count || vectors < me->count)
        return (part){1, share_start(q->batch, me), share_end(q->batch, me), 0, vectors, 0, 0};
    return (part){0, 0, q->batch, share_start(vectors, me), share_end(vectors, me), 0, 0};
}

/* The number of steps from t on, in a direction of 1 or -1, that have the same mask value. The first step of all is alone,
 * because the states before it are in another array. */
static long steps_with_same_mask(const recurrence *q, long t, long row, long direction, int *on) {
    long most = !t ? 1 : direction > 0 ? q->time - t : t, steps = 1;
    const unsigned char *m = q->mask;
    if (!m) return *on = 1, most;
    m += t * q->mask_time_step + row * q->mask_batch_step;
    *on = *m != 0;
    while (steps < most && (m[steps * direction * q->mask_time_step] != 0) == *on) steps++;
    return steps;
}

static block steps_at(const sequence *s, long t, long row, long u, long direction) {
    return (block){s->data + t * s->time_step + row * s->batch_step + u, direction * s->time_step};
}

static block state_steps(const recurrence *q, long s, long t, long row, long u, long direction, real *zero) {
    const sequence of_state = {q->state[s], q->state_time_step, q->state_batch_step};
    if (t >= 0) return steps_at(&of_state, t, row, u, direction);
    return (block){q->initial[s] ? (real *)q->initial[s] + row * q->units + u : zero, 0};
}

static void elementwise_forward(void *argument, const team_member *me) {
    const recurrence *q = argument;
    part my = own_part(q, me);
    long u = my.j0 * LANES, columns = min_long(my.j1 * LANES, q->units) - u;
    real *zero = q->scratch + me->index * (q->states + 1) * vector_count(q->units) * LANES;
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    copy_rows(1, columns, NULL, 0, zero, 0);
    for (long row = my.row; row < my.end; row++)
        for (long t = 0, steps; t < q->time; t += steps) {
            int on, n = 2 * (int)q->gates; /* the products are not read */
            steps = steps_with_same_mask(q, t, row, 1, &on);
            for (long g = 0; g < q->gates; g++) {
                in[g] = steps_at(&q->projected, t, row, u + g * q->units, 1);
                in[q->gates + g] = (block){zero, 0};
            }
            for (long s = 0; s < q->states; s++, n++) {
                in[n] = state_steps(q, s, t - 1, row, u, 1, zero);
                out[s] = state_steps(q, s, t, row, u, 1, zero);
                if (!on) copy_rows(steps, columns, in[n].data, in[n].row, out[s].data, out[s].row);
            }
            for (long i = 0; i < q->others; i++) in[n++] = steps_at(&q->other[i], t, row, u, 1);
            if (on) q->cell(steps, columns, in, out);
        }
}

static void elementwise_backward(void *argument, const team_member *me) {
    const recurrence *q = argument;
    part my = own_part(q, me);
    long u = my.j0 * LANES, columns = min_long(my.j1 * LANES, q->units) - u, padded = vector_count(q->units) * LANES;
    real *zero = q->scratch + me->index * (q->states + 1) * padded, *carried = zero + padded;
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    copy_rows(1, columns, NULL, 0, zero, 0);
    for (long row = my.row; row < my.end; row++) {
        for (long s = 0; s < q->states; s++)
            copy_rows(1, columns, q->carried[s] + row * q->units + u, 0, carried + s * padded, 0);
        for (long t = q->time - 1, steps; t >= 0; t -= steps) {
            int on, n = 0, m = 0;
            steps = steps_with_same_mask(q, t, row, -1, &on);
            for (long g = 0; g < q->gates; g++) in[n++] = steps_at(&q->projected, t, row, u + g * q->units, -1);
            for (long s = 0; s < q->states; s++) in[n++] = state_steps(q, s, t - 1, row, u, -1, zero);
            for (long s = 0; s < q->states; s++) in[n++] = state_steps(q, s, t, row, u, -1, zero);
            for (long i = 0; i < q->others; i++) in[n++] = steps_at(&q->other[i], t, row, u, -1);
            for (long s = 0; s < q->states; s++) in[n++] = (block){carried + s * padded, 0};
            for (long s = 0; s < q->states; s++)
                in[n++] = q->gradient[s].data ? steps_at(&q->gradient[s], t, row, u, -1) : (block){zero, 0};
            for (long i = 0; i < q->other_sums; i++) in[n++] = (block){q->sums + (i * q->batch + row) * padded + u, 0};
            for (long g = 0; g < q->gates; g++) out[m++] = steps_at(&q->d_projected, t, row, u + g * q->units, -1);
            for (long i = 0; i < q->other_sequences; i++) out[m++] = steps_at(&q->d_other[i], t, row, u, -1);
            for (long k = 0; k < m && !on; k++) copy_rows(steps, columns, NULL, 0, out[k].data, out[k].row);
            for (long s = 0; s < q->states; s++) {
                const block *given = &in[n - q->other_sums - q->states + s];
                real *now = carried + s * padded;
                out[m++] = (block){now, 0};
                for (long r = 0; r < steps && !on; r++)
                    for (long c = 0; c < columns; c++) now[c] += given->data[r * given->row + c];
            }
            for (long i = 0; i < q->other_sums; i++) out[m++] = in[n - q->other_sums + i];
            if (on) q->cell_gradient(steps, columns, in, out);
        }
        for (long s = 0; s < q->states; s++)
            copy_rows(1, columns, carried + s * padded, 0, q->carried[s] + row * q->units + u, 0);
    }
}

/* Scratch memory, in elements, for both directions. */
long elementwise_scratch(long units, long states, long threads) { return threads * (states + 1) * vector_count(units) * LANES; }

static long elementwise_threads(const recurrence *q, long threads) {
    double work = (double)q->batch * q->units * q->gates * q->time;
    long parts = q->batch > vector_count(q->units) ? q->batch : vector_count(q->units);
    return min_long(min_long(threads, parts), (long)(work / 100e3) + 1);
}
