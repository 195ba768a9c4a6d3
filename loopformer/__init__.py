"""loopformer: looped transformers in JAX, every family on one loop."""

__version__ = '0.1.0'
