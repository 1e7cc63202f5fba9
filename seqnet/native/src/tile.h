/* The register tile: a few rows of A times a panel of B, with all sums in registers.
 *
 *     C[r, v] = init[r, v] + sum over k of A[r, k] * B[k, v]          r < rows, v < vectors
 *
 * Most of the time of a model is spent here, so the tile fits the register file: with 32 registers 6 rows of 4 vectors
 * (24 sums, 4 of B, 1 of A), with 16 registers 6 rows of 2 (12, 2, 1). Every element is summed over k in order, whatever
 * the shape of the tile, so results do not depend on how a product is divided into tiles or among threads.
 *
 * The tiles of `pair_tiles` do the same with words of two bfloat16 numbers: see pairs.h.
 */
#ifndef SEQNET_TILE_H
#define SEQNET_TILE_H
#include "vector.h"
#include "pairs.h"

#if VECTOR_BYTES == 64 || defined(__aarch64__)
#define TILE_ROWS 6
#define TILE_VECTORS 4
#else
#define TILE_ROWS 6
#define TILE_VECTORS 2
#endif
#define PANEL ((long)TILE_VECTORS * LANES) /* columns of a full panel */

/* Strides are in elements. init may be NULL (zeros), or have a row stride of 0 (the same row of biases for all). */
typedef void tile_function(long depth, const real *a, long a_row, long a_k, const real *b, long b_k, const real *init,
                           long init_row, real *c, long c_row);

INLINE vmask splat_word(const real *p) {
    whole bits;
    memcpy(&bits, p, sizeof bits);
    return (vmask){0} + bits;
}

INLINE void tile_body(const int pairs, const int rows, const int vectors, long depth, const real *a, long a_row, long a_k,
                      const real *b, long b_k, const real *init, long init_row, real *c, long c_row) {
    vreal sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++)
            sum[r][v] = init ? load(init + r * init_row + v * LANES) : splat(0);
    for (long k = 0; k < depth; k++) {
        vreal column[TILE_VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) column[v] = load(b + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            if (pairs) {
                vmask x = splat_word(a + r * a_row);
#pragma GCC unroll 8
                for (int v = 0; v < vectors; v++) sum[r][v] = v_add_pairs(sum[r][v], x, (vmask)column[v]);
                continue;
            }
            vreal x = splat(a[r * a_row]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sum[r][v] += x * column[v];
        }
        a += a_k;
        b += b_k;
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) store(c + r * c_row + v * LANES, sum[r][v]);
}

#define TILE(PAIRS, NAME, ROWS, VECTORS)                                                                         \
    static __attribute__((noinline)) void NAME##_##ROWS##x##VECTORS(                                             \
        long depth, const real *a, long a_row, long a_k, const real *b, long b_k, const real *init, long init_row, \
        real *c, long c_row) {                                                                                    \
        tile_body(PAIRS, ROWS, VECTORS, depth, a, a_row, a_k, b, b_k, init, init_row, c, c_row);                   \
    }
#define TILES(P, N, VECTORS)                                                                       \
    TILE(P, N, 1, VECTORS) TILE(P, N, 2, VECTORS) TILE(P, N, 3, VECTORS) TILE(P, N, 4, VECTORS)    \
    TILE(P, N, 5, VECTORS) TILE(P, N, 6, VECTORS)
#define TILE_ROW(N, VECTORS)                                                                       \
    {N##_1x##VECTORS, N##_2x##VECTORS, N##_3x##VECTORS, N##_4x##VECTORS, N##_5x##VECTORS, N##_6x##VECTORS}
#if TILE_VECTORS == 4
#define ALL_TILES(P, N) TILES(P, N, 1) TILES(P, N, 2) TILES(P, N, 3) TILES(P, N, 4)
#define TILE_TABLE(N) {TILE_ROW(N, 1), TILE_ROW(N, 2), TILE_ROW(N, 3), TILE_ROW(N, 4)}
#else
#define ALL_TILES(P, N) TILES(P, N, 1) TILES(P, N, 2)
#define TILE_TABLE(N) {TILE_ROW(N, 1), TILE_ROW(N, 2)}
#endif
typedef tile_function *const tile_table[TILE_ROWS];
ALL_TILES(0, tile)
static tile_table tiles[TILE_VECTORS] = TILE_TABLE(tile);
#if REAL_BITS == 32
ALL_TILES(1, pair_tile)
static tile_table pair_tiles[TILE_VECTORS] = TILE_TABLE(pair_tile);
#else
#define pair_tiles tiles /* never called */
#endif

/* Rows are divided into tiles of nearly equal height: 32 rows are 5+5+6+5+5+6, not five times 6 and a slow 2. */
INLINE long tile_count(long rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }
INLINE long tile_start(long rows, long i) { return rows * i / tile_count(rows); }
#endif
