/* Matrix products of any shape and strides: C = A B, plus a row of biases, plus C.
 *
 * Each thread computes a rectangle of C. It iterates over blocks of K, blocks of its rows and panels of its columns. A
 * panel of B is copied ("packed") so that the tile reads it in order. A is read in place unless its K axis is strided,
 * as in a transpose. The caller provides the scratch memory of each thread.
 *
 * The products of DEPTH_BLOCK indices of K are added up in order, and then these sums: with one sum over all of K, the
 * rounding errors of long sums would grow with K.
 *
 * With `bfloat16` both operands are rounded where they are packed, and a block of K is twice as deep: see pairs.h.
 */
#define DEPTH_BLOCK 512L                  /* of K: a packed panel fits into the L2 cache */
#define ROW_BLOCK (96L * TILE_ROWS)       /* of M, for packed A */
#define FEW_ROWS (2L * TILE_ROWS)         /* up to this many, packing B takes longer than it saves */
#define IN_PLACE_BLOCK 32L                /* of K where B is not packed: reads B row by row */
#define TRANSPOSE_BLOCK 16L               /* rows written at a time when packing transposes */
#define MIN_OPERATIONS 2e6             /* for several threads: data written by another core is slow to read */
#define MIN_OPERATIONS_FEW_ROWS 200e3          /* with few rows: most time goes to reading B, which is not written */
#define GEMM_SCRATCH (DEPTH_BLOCK * (PANEL + ROW_BLOCK) + TILE_ROWS * PANEL) /* elements for each thread */
#define PACKED_TILES 8L                   /* of A that are packed at a time where both its axes are rounded */
#define SUM_COLUMNS (DEPTH_BLOCK * (ROW_BLOCK - FEW_ROWS) / FEW_ROWS) /* for which the sums of a block fit beside A */

/* One operand of a product. Index k of the common axis is at (k % inner) * k_step + (k / inner) * k_outer, so that the
 * axis may be two axes of an array, such as time and batch, with any strides. */
typedef struct {
    const real *data;
    long step; /* along the operand's own axis: rows of A, columns of B */
    long k_step, k_outer, inner;
} gemm_side;

typedef struct {
    long m, n, k;
    gemm_side a, b;
    real *c;
    long c_row;
    const real *bias;  /* (n,) or NULL */
    long accumulate;   /* add to C */
    real *column_sums; /* (n,) or NULL: the sums of B over k, which are nearly free here */
    long first_sums;   /* overwrite column_sums instead of adding to them */
    real *scratch;
    long row_parts, column_parts; /* the grid of threads */
    long bfloat16; /* round both operands; only in the library of float */
} gemm_arguments;

/* The address of index k of the common axis, and how many indices from there have the same stride. */
static const real *line_from(const gemm_side *s, long k, long depth, long *run) {
    long rest = s->inner - k % s->inner;
    *run = rest < depth ? rest : depth;
    return s->data + (k % s->inner) * s->k_step + (k / s->inner) * s->k_outer;
}

static inline void copy_short(real *to, const real *from, long n) { /* for few elements a call of memcpy takes longer */
    long i = 0;
    for (; i + LANES <= n; i += LANES) store(to + i, load(from + i));
    for (; i < n; i++) to[i] = from[i];
}

/* B[k0:k0+depth, column:column+width] -> packed (depth, vectors * LANES), zeros beyond the width */
static void pack_b(const gemm_side *b, long k0, long depth, long column, long width, real *packed) {
    long full = (width + LANES - 1) / LANES * LANES, run;
    for (long k = 0; k < depth; k += run, packed += run * full) {
        const real *from = line_from(b, k0 + k, depth - k, &run) + column * b->step;
        if (b->step == 1) {
            for (long i = 0; i < run; i++) {
                copy_short(packed + i * full, from + i * b->k_step, width);
                for (long c = width; c < full; c++) packed[i * full + c] = 0;
            }
        } else {
            for (long i0 = 0; i0 < run; i0 += TRANSPOSE_BLOCK)
                for (long c = 0; c < full; c++)
                    for (long i = i0; i < run && i < i0 + TRANSPOSE_BLOCK; i++)
                        packed[i * full + c] = c < width ? from[c * b->step + i * b->k_step] : 0;
        }
    }
}

/* A[row:row+rows, k0:k0+depth] -> tile after tile of (depth, rows of the tile) */
static void pack_a(const gemm_side *a, long row, long rows, long k0, long depth, real *packed) {
    for (long i = 0, run; i < tile_count(rows); i++) {
        long r0 = tile_start(rows, i), height = tile_start(rows, i + 1) - r0;
        for (long k = 0; k < depth; k += run) {
            const real *from = line_from(a, k0 + k, depth - k, &run) + (row + r0) * a->step;
            for (long j = 0; j < run; j++, packed += height, from += a->k_step) {
                if (height == TILE_ROWS && a->step == 1)
                    memcpy(packed, from, TILE_ROWS * sizeof(real));
                else
                    for (long r = 0; r < height; r++) packed[r] = from[r * a->step];
            }
        }
    }
}

/* The lines of the common axis, one after the other. */
typedef struct {
    const real *at, *outer;
    long k_step, k_outer, inner, rest;
} lines;

static lines lines_from(const gemm_side *s, long k) {
    const real *outer = s->data + (k / s->inner) * s->k_outer;
    return (lines){outer + (k % s->inner) * s->k_step, outer, s->k_step, s->k_outer, s->inner, s->inner - k % s->inner};
}

static inline const real *next_line(lines *l) {
    const real *line = l->at;
    if (--l->rest)
        l->at += l->k_step;
    else
        l->at = l->outer += l->k_outer, l->rest = l->inner;
    return line;
}

/* The pairs of n numbers of two lines, `step` apart; a second line of NULL is zeros. */
static void pairs_of_lines(const real *first, const real *second, long step, long n, word *to) {
    real x[64], y[64];
    if (step == 1) {
        pairs_of_rows(first, second, n, to);
        return;
    }
    for (long i = 0; i < n; i += 64) {
        long count = n - i < 64 ? n - i : 64;
        for (long c = 0; c < count; c++) x[c] = first[(i + c) * step], y[c] = second ? second[(i + c) * step] : 0;
        pairs_of_rows(x, y, count, to + i);
    }
}

/* pack_b with rounding: (words, vectors * LANES) */
static void pack_b_pairs(const gemm_side *b, long k0, long depth, long column, long width, word *packed) {
    long full = (width + LANES - 1) / LANES * LANES;
    lines l = lines_from(b, k0);
    if (b->step != 1 && b->k_step == 1 && l.rest >= depth) {
        pack_pairs_transposed(l.at + column * b->step, b->step, depth, width, full, packed);
        return;
    }
    for (long k = 0; k < depth; k += 2, packed += full) {
        const real *first = next_line(&l) + column * b->step;
        const real *second = k + 1 < depth ? next_line(&l) + column * b->step : NULL;
        pairs_of_lines(first, second, b->step, width, packed);
        for (long c = width; c < full; c++) packed[c] = 0;
    }
}

/* pack_a with rounding. If K is contiguous, rows are packed one after the other, (rows, words), otherwise as in pack_a. */
static void pack_a_pairs(const gemm_side *a, int by_rows, long row, long rows, long k0, long depth, word *packed) {
    long words = (depth + 1) / 2;
    if (by_rows) {
        for (long r = 0; r < rows; r++) pairs_along(a->data + (row + r) * a->step + k0, depth, packed + r * words);
        return;
    }
    for (long i0 = 0, count = tile_count(rows); i0 < count; i0 += PACKED_TILES) {
        long i1 = i0 + PACKED_TILES < count ? i0 + PACKED_TILES : count, r0 = tile_start(rows, i0);
        lines l = lines_from(a, k0);
        for (long k = 0; k < depth; k += 2) {
            word some[PACKED_TILES * TILE_ROWS];
            const real *first = next_line(&l) + (row + r0) * a->step;
            const real *second = k + 1 < depth ? next_line(&l) + (row + r0) * a->step : NULL;
            pairs_of_lines(first, second, a->step, tile_start(rows, i1) - r0, some);
            for (long i = i0; i < i1; i++) {
                long start = tile_start(rows, i), height = tile_start(rows, i + 1) - start;
                word *to = packed + start * words + k / 2 * height;
                for (long r = 0; r < height; r++) to[r] = some[start - r0 + r];
            }
        }
    }
}

/* The sums of the columns of B over a block of K, of numbers that are not rounded. */
static void add_line_sums(const gemm_side *b, long k0, long depth, long column, long width, long first, real *sums) {
    real some[PANEL];
    lines l = lines_from(b, k0);
    for (long c = 0; c < width; c++) some[c] = 0;
    for (long k = 0; k < depth; k++) {
        const real *line = next_line(&l) + column * b->step;
        if (b->step == 1) {
            long c = 0;
            for (; c + LANES <= width; c += LANES) store(some + c, load(some + c) + load(line + c));
            for (; c < width; c++) some[c] += line[c];
        } else
            for (long c = 0; c < width; c++) some[c] += line[c * b->step];
    }
    for (long c = 0; c < width; c++) sums[c] = first ? some[c] : sums[c] + some[c];
}

static void add_column_sums(const real *packed, long depth, long width, long first, real *sums) {
    long full = (width + LANES - 1) / LANES * LANES;
    for (long v = 0; v < width; v += LANES) {
        vreal sum = splat(0);
        real out[LANES];
        long lanes = width - v < LANES ? width - v : LANES;
        for (long k = 0; k < depth; k++) sum += load(packed + k * full + v);
        store(out, sum);
        for (long c = 0; c < lanes; c++) sums[v + c] = first ? out[c] : sums[v + c] + out[c];
    }
}

static void add_rows(const real *from, long from_row, long rows, long width, real *to, long to_row) {
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < width; i++) to[r * to_row + i] += from[r * from_row + i];
}

/* rows x width of C for one block of K, tile by tile; `add` to C what init and the block give. A panel that is not whole
 * vectors uses a small buffer, and so does adding. */
static void product(tile_table *table, long rows, long width, long depth, const real *a, long a_row, long a_k, int a_packed,
                    const real *b, long b_k, const real *init, long init_row, real *c, long c_row, int add, real *edge) {
    long vectors = (width + LANES - 1) / LANES, whole = vectors * LANES == width;
    for (long i = 0; i < tile_count(rows); i++) {
        long r0 = tile_start(rows, i), height = tile_start(rows, i + 1) - r0;
        const real *from = init ? init + r0 * init_row : NULL;
        real *to = c + r0 * c_row;
        const real *tile_a = a_packed ? a + r0 * depth : a + r0 * a_row;
        long row_step = a_packed ? 1 : a_row, k_step = a_packed ? height : a_k;
        tile_function *tile = table[vectors - 1][height - 1];
        if (whole && !add) {
            tile(depth, tile_a, row_step, k_step, b, b_k, from, init_row, to, c_row);
            continue;
        }
        for (long r = 0; from && r < height; r++) copy_short(edge + r * PANEL, from + r * init_row, width);
        tile(depth, tile_a, row_step, k_step, b, b_k, from ? edge : NULL, PANEL, edge, PANEL);
        if (add) add_rows(edge, PANEL, height, width, to, c_row);
        for (long r = 0; !add && r < height; r++) copy_short(to + r * c_row, edge + r * PANEL, width);
    }
}

static void gemm_job(void *argument, const team_member *me) {
    gemm_arguments *g = argument;
    long parts = g->row_parts * g->column_parts, words = g->bfloat16 ? 2 : 1; /* numbers in an element of packed operands */
    long vectors = (g->n + LANES - 1) / LANES;
    tile_table *table = g->bfloat16 ? pair_tiles : tiles;
    for (long part = me->index; part < parts; part += me->count) {
        team_member down = {part / g->column_parts, g->row_parts}, across = {part % g->column_parts, g->column_parts};
        long m0 = share_start(g->m, &down), m1 = share_end(g->m, &down);
        long n0 = share_start(vectors, &across) * LANES, n1 = share_end(vectors, &across) * LANES;
        real *packed_b = g->scratch + me->index * GEMM_SCRATCH, *packed_a = packed_b + DEPTH_BLOCK * PANEL;
        real *edge = packed_a + DEPTH_BLOCK * ROW_BLOCK;
        int a_by_rows = g->a.k_step == 1 && g->a.inner >= g->k, a_in_place = a_by_rows && !g->bfloat16;
        if (n1 > g->n) n1 = g->n;
        int b_in_place = g->b.step == 1 && g->m <= FEW_ROWS && g->b.inner >= g->k && !g->column_sums &&
                         (g->k <= DEPTH_BLOCK || n1 - n0 <= SUM_COLUMNS) && !g->bfloat16;
        real *sums = packed_a + FEW_ROWS * DEPTH_BLOCK; /* of the smaller blocks where B is in place */
        if (g->bias && g->accumulate)
            for (long m = m0; m < m1; m++)
                for (long n = n0; n < n1; n++) g->c[m * g->c_row + n] += g->bias[n];
        if (b_in_place && m1 - m0 == 1 && a_in_place) { /* all whole vectors of columns; the rest is below */
            long columns = (n1 - n0) / LANES * LANES;
            real *c = g->c + m0 * g->c_row + n0;
            const real *init = g->accumulate ? c : g->bias ? g->bias + n0 : NULL;
            for (long k0 = 0; columns && (k0 == 0 || k0 < g->k); k0 += DEPTH_BLOCK) {
                long depth = g->k - k0 < DEPTH_BLOCK ? g->k - k0 : DEPTH_BLOCK;
                row_product(depth, g->a.data + m0 * g->a.step + k0, 1, g->b.data + n0 + k0 * g->b.k_step, g->b.k_step,
                            columns, k0 ? NULL : init, k0 ? sums : c);
                if (k0) add_rows(sums, columns, 1, columns, c, g->c_row);
            }
            n0 += columns;
        }
        long block = b_in_place ? IN_PLACE_BLOCK : DEPTH_BLOCK * words;
        for (long k0 = 0; k0 == 0 || k0 < g->k; k0 += block) {
            long depth = g->k - k0 < block ? g->k - k0 : block, packed_depth = (depth + words - 1) / words;
            long row_blocks = (m1 - m0 + ROW_BLOCK - 1) / ROW_BLOCK;
            for (long i = 0; i < row_blocks; i++) {
                long row = m0 + (m1 - m0) * i / row_blocks, rows = m0 + (m1 - m0) * (i + 1) / row_blocks - row;
                const real *a = a_in_place ? g->a.data + row * g->a.step + k0 : packed_a;
                long a_row = a_in_place ? g->a.step : packed_depth;
                if (g->bfloat16)
                    pack_a_pairs(&g->a, a_by_rows, row, rows, k0, depth, (word *)packed_a);
                else if (!a_in_place)
                    pack_a(&g->a, row, rows, k0, depth, packed_a);
                for (long n = n0; n < n1; n += PANEL) {
                    long width = n1 - n < PANEL ? n1 - n : PANEL;
                    long full = (width + LANES - 1) / LANES * LANES, b_k = full;
                    long first_sums = !k0 && g->first_sums;
                    const real *b = packed_b, *init = g->bias ? g->bias + n : NULL;
                    long init_row = 0;
                    real *c = g->c + row * g->c_row + n;
                    if (b_in_place && full == width)
                        b = g->b.data + n + k0 * g->b.k_step, b_k = g->b.k_step;
                    else if (g->bfloat16)
                        pack_b_pairs(&g->b, k0, depth, n, width, (word *)packed_b);
                    else
                        pack_b(&g->b, k0, depth, n, width, packed_b);
                    if (g->column_sums && down.index == 0 && i == 0) {
                        if (g->bfloat16)
                            add_line_sums(&g->b, k0, depth, n, width, first_sums, g->column_sums + n);
                        else
                            add_column_sums(packed_b, depth, width, first_sums, g->column_sums + n);
                    }
                    if (k0 || g->accumulate) init = c, init_row = g->c_row;
                    if (k0 < DEPTH_BLOCK || !b_in_place) {
                        int add = k0 > 0 && !b_in_place;
                        if (add) init = NULL;
                        product(table, rows, width, packed_depth, a, a_row, 1, !a_by_rows, b, b_k, init, init_row, c, g->c_row,
                                add, edge);
                        continue;
                    }
                    real *sum = sums + (n - n0);
                    init = k0 % DEPTH_BLOCK ? sum : NULL;
                    product(table, rows, width, depth, a, a_row, 1, !a_by_rows, b, b_k, init, n1 - n0, sum, n1 - n0, 0, edge);
                    if ((k0 + depth) % DEPTH_BLOCK == 0 || k0 + depth == g->k)
                        add_rows(sum, n1 - n0, rows, width, c, g->c_row);
                }
            }
        }
    }
}

/* Choose the grid of threads with the least work for each thread, including packing. */
static long gemm_plan(gemm_arguments *g, long threads) {
    double best = 1e300;
    long chosen = 1;
    if (2.0 * g->m * g->n * g->k < (g->m <= FEW_ROWS ? MIN_OPERATIONS_FEW_ROWS : MIN_OPERATIONS)) threads = 1;
    g->row_parts = g->column_parts = 1;
    for (long down = 1; down <= threads; down++) {
        long across = threads / down;
        if (down > tile_count(g->m) && down > 1) break;
        if (across > (g->n + LANES - 1) / LANES) across = (g->n + LANES - 1) / LANES;
        if (across < 1) across = 1;
        double rows = (double)tile_count((g->m + down - 1) / down) * TILE_ROWS;
        double columns = (double)(((g->n + LANES - 1) / LANES + across - 1) / across) * LANES;
        double cost = rows * columns + 16 * columns + (g->a.k_step == 1 ? 2 : 16) * rows;
        if (cost < best) best = cost, g->row_parts = down, g->column_parts = across, chosen = down * across;
    }
    return chosen;
}

static void gemm_with_team(gemm_arguments *g, long threads) {
    if (g->m <= 0 || g->n <= 0) return;
    if (g->a.inner <= 0) g->a.inner = g->k + 1;
    if (g->b.inner <= 0) g->b.inner = g->k + 1;
    long parts = gemm_plan(g, threads);
    team_run(gemm_job, g, parts);
}

long gemm_scratch(long threads) { return threads * GEMM_SCRATCH; }
void gemm(gemm_arguments *g, long threads) { gemm_with_team(g, threads); }
