"""Symbolic Ops that layers, losses and optimizers are built from.

Each Op is a `GraphOp` (`graph_op`), defined by a graph of PyTensor's own Ops. seqnet's own modes
replace most of them by compiled kernels (`seqnet.backend`).

- `step`, `recurrence`, `unrolled`: a traced step, the recurrence over all steps, unrolled loops.
- `affine`, `lookup`, `lookup_affine`: affine maps, embeddings, and an affine map of an embedding.
- `additive`: the scores of additive attention.
- `crossentropy`, `norms`, `count`, `dropout`: loss of integer targets, norms, sizes, dropout masks.
"""
