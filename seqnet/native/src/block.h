/* The calling convention of all generated code: an elementwise function of blocks.
 *
 * A block has `rows` rows of `columns` consecutive numbers, `row` elements apart (0: the same numbers for every row). A
 * generated function computes every output block from the input blocks. It reads a vector of every input before it
 * writes the outputs at that position, so an output may be an input. Cells, their gradients and optimizers use it.
 */
typedef struct {
    real *data;
    long row;
} block;

typedef void block_function(long rows, long columns, const block *in, const block *out);
