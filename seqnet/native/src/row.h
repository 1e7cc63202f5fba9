/* One row times a matrix that is read in place.
 *
 *     c[v] = init[v] + sum over k of a[k] * b[k, v]          v < columns, a multiple of LANES
 *
 * Each number of the matrix is used once, so the time is that of reading it. A tile would read a few columns of many
 * rows, which is slow from the second-level cache; here ROWS_AT_ONCE whole rows are read side by side. The sums are in
 * the order of k, as in a tile, so both give the same result. */
#include "tile.h"

#define ROWS_AT_ONCE 8

INLINE void add_products(const int rows, const real *a, long a_k, const real *b, long b_k, long columns, const real *from, real *c) {
    vreal x[ROWS_AT_ONCE];
#pragma GCC unroll 8
    for (int k = 0; k < rows; k++) x[k] = splat(a[k * a_k]);
    for (long v = 0; v < columns; v += LANES) {
        vreal sum = from ? load(from + v) : splat(0);
#pragma GCC unroll 8
        for (int k = 0; k < rows; k++) sum += x[k] * load(b + k * b_k + v);
        store(c + v, sum);
    }
}

static void row_product(long depth, const real *a, long a_k, const real *b, long b_k, long columns, const real *init, real *c) {
    long k = 0;
    for (; k + ROWS_AT_ONCE <= depth; k += ROWS_AT_ONCE, init = c)
        add_products(ROWS_AT_ONCE, a + k * a_k, a_k, b + k * b_k, b_k, columns, init, c);
    for (; k < depth || !k; k++, init = c) add_products(k < depth, a + k * a_k, a_k, b + k * b_k, b_k, columns, init, c);
}
