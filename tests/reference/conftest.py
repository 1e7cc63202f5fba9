"""Keep pytest away from the scripts that need PyTorch or Keras to be imported."""

collect_ignore = [
    "make_keras.py",
    "make_keras_callbacks.py",
    "make_keras_merging.py",
    "make_pytorch.py",
]
