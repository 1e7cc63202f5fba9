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
