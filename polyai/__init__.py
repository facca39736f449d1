"""PolyAI: a compiler for sparse and dynamic-shape tensor programs around a polyhedral scheduler."""

__version__ = "0.1.0"
