/* The one calling convention of generated code: an elementwise function of blocks.
 *
 * A block is `rows` lines of `columns` consecutive numbers, `row` elements apart (0: the same line for every row). A
 * generated function computes every output block from the input blocks. It reads a vector of every input before it
 * writes the outputs at that place, so an output may be an input. A cell, its gradient and an optimizer are all this.
 */
typedef struct {
    real *data;
    long row;
} block;

typedef void block_function(long rows, long columns, const block *in, const block *out);
