"""Saving: models and runs as HDF5 files that are written whole or not at all."""
