/* The register tile: a few rows of A times a panel of B, all sums kept in registers.
 *
 *     C[r, v] = init[r, v] + sum over k of A[r, k] * B[k, v]          r < rows, v < vectors
 *
 * This is where nearly all the time of a model goes, so the tile fits the register file: with 32 registers 6 rows of 4
 * vectors (24 sums, 4 of B, 1 of A), with 16 registers 6 rows of 2 (12, 2, 1). Every element is summed over k in order
 * in one place whatever the shape of the tile, so results do not depend on how a product is cut into tiles or threads.
 */
#include "vector.h"

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

INLINE void tile_body(const int rows, const int vectors, long depth, const real *a, long a_row, long a_k,
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

#define TILE(ROWS, VECTORS)                                                                                      \
    static __attribute__((noinline)) void tile_##ROWS##x##VECTORS(                                                \
        long depth, const real *a, long a_row, long a_k, const real *b, long b_k, const real *init, long init_row, \
        real *c, long c_row) {                                                                                    \
        tile_body(ROWS, VECTORS, depth, a, a_row, a_k, b, b_k, init, init_row, c, c_row);                          \
    }
#define TILES(VECTORS) \
    TILE(1, VECTORS) TILE(2, VECTORS) TILE(3, VECTORS) TILE(4, VECTORS) TILE(5, VECTORS) TILE(6, VECTORS)
#define TILE_ROW(VECTORS)                                                                        \
    {                                                                                            \
        tile_1x##VECTORS, tile_2x##VECTORS, tile_3x##VECTORS, tile_4x##VECTORS, tile_5x##VECTORS, \
            tile_6x##VECTORS                                                                     \
    }
TILES(1)
TILES(2)
#if TILE_VECTORS == 4
TILES(3)
TILES(4)
static tile_function *const tiles[TILE_VECTORS][TILE_ROWS] = {TILE_ROW(1), TILE_ROW(2), TILE_ROW(3), TILE_ROW(4)};
#else
static tile_function *const tiles[TILE_VECTORS][TILE_ROWS] = {TILE_ROW(1), TILE_ROW(2)};
#endif

/* Rows are cut into tiles of nearly equal height: 32 rows are 5+5+6+5+5+6 rather than five of 6 and a slow 2. */
INLINE long tile_count(long rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }
INLINE long tile_start(long rows, long i) { return rows * i / tile_count(rows); }
