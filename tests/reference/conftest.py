"""Keep pytest away from the scripts that need PyTorch or Keras to be imported."""

collect_ignore_glob = ["make_*.py"]
