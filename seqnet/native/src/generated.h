/* Included before generated code: the loop over the rows and vectors of its blocks. */
#include "vector.h"
#include "block.h"

/* NAME_vector computes one vector of every output at `from[i] + at`. Last columns that are not a whole vector use a
 * small buffer, so that nothing is read or written beyond the blocks. NAME_reads lists the inputs to copy to it,
 * NAME_singles the inputs that are a single number for each row. */
#define BLOCK_FUNCTION(NAME, INPUTS, OUTPUTS)                                                                    \
    void NAME(long rows, long columns, const block *in, const block *out) {                                      \
        real edge[INPUTS + OUTPUTS][LANES] __attribute__((aligned(VECTOR_BYTES)));                               \
        const real *from[INPUTS + 1], *edge_from[INPUTS + 1];                                                    \
        real *to[OUTPUTS + 1], *edge_to[OUTPUTS + 1];                                                            \
        for (int i = 0; i < INPUTS; i++) from[i] = in[i].data, edge_from[i] = edge[i];                           \
        for (int i = 0; i < OUTPUTS; i++) to[i] = out[i].data, edge_to[i] = edge[INPUTS + i];                    \
        for (long row = 0; row < rows; row++) {                                                                  \
            for (long at = 0; at < columns; at += LANES) {                                                       \
                long width = columns - at;                                                                       \
                if (__builtin_expect(width >= LANES, 1)) {                                                       \
                    NAME##_vector(from, to, at);                                                                 \
                    continue;                                                                                    \
                }                                                                                                \
                memset(edge, 0, sizeof edge);                                                                    \
                for (const int *i = NAME##_singles; *i >= 0; i++) edge_from[*i] = from[*i];                      \
                for (const int *i = NAME##_reads; *i >= 0; i++)                                                  \
                    memcpy(edge[*i], from[*i] + at, (size_t)width * sizeof(real));                               \
                NAME##_vector(edge_from, edge_to, 0);                                                            \
                for (int i = 0; i < OUTPUTS; i++) memcpy(to[i] + at, edge_to[i], (size_t)width * sizeof(real));  \
            }                                                                                                    \
            for (int i = 0; i < INPUTS; i++) from[i] += in[i].row;                                               \
            for (int i = 0; i < OUTPUTS; i++) to[i] += out[i].row;                                               \
        }                                                                                                        \
    }

/* The same with sums and largest values over the columns, which are the last outputs: one number for each row. NAME_vector
 * adds the lanes of `on` to `total`; NAME_start sets it at the beginning of a row, and NAME_end stores it. */
#define REDUCING_FUNCTION(NAME, INPUTS, OUTPUTS, TOTALS)                                                         \
    void NAME(long rows, long columns, const block *in, const block *out) {                                      \
        const vmask all = ~(vmask){0};                                                                           \
        real edge[INPUTS + OUTPUTS + 1][LANES] __attribute__((aligned(VECTOR_BYTES)));                           \
        const real *from[INPUTS + 1], *edge_from[INPUTS + 1];                                                    \
        real *to[OUTPUTS + TOTALS], *edge_to[OUTPUTS + 1];                                                       \
        for (int i = 0; i < INPUTS; i++) from[i] = in[i].data, edge_from[i] = edge[i];                           \
        for (int i = 0; i < OUTPUTS + TOTALS; i++) to[i] = out[i].data;                                          \
        for (int i = 0; i < OUTPUTS; i++) edge_to[i] = edge[INPUTS + i];                                         \
        for (long row = 0; row < rows; row++) {                                                                  \
            vreal total[TOTALS];                                                                                 \
            long at = 0, width;                                                                                  \
            NAME##_start(total);                                                                                 \
            for (; at + LANES <= columns; at += LANES) NAME##_vector(from, to, at, total, all);                  \
            if ((width = columns - at)) {                                                                        \
                vmask on = {0};                                                                                  \
                for (long c = 0; c < width; c++) on[c] = -1;                                                     \
                memset(edge, 0, sizeof edge);                                                                    \
                for (const int *i = NAME##_singles; *i >= 0; i++) edge_from[*i] = from[*i];                      \
                for (const int *i = NAME##_reads; *i >= 0; i++)                                                  \
                    memcpy(edge[*i], from[*i] + at, (size_t)width * sizeof(real));                               \
                NAME##_vector(edge_from, edge_to, 0, total, on);                                                 \
                for (int i = 0; i < OUTPUTS; i++) memcpy(to[i] + at, edge_to[i], (size_t)width * sizeof(real));  \
            }                                                                                                    \
            NAME##_end(total, to + OUTPUTS);                                                                     \
            for (int i = 0; i < INPUTS; i++) from[i] += in[i].row;                                               \
            for (int i = 0; i < OUTPUTS + TOTALS; i++) to[i] += out[i].row;                                      \
        }                                                                                                        \
    }
