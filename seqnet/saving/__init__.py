"""Saving: models and training runs as HDF5 files, which are written atomically."""
