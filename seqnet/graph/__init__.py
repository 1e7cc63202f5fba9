"""The graph of a model, the names of its inputs and outputs, and models as layers."""
