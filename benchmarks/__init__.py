"""Measurements of PolyAI against libraries its users would otherwise call. Run `python -m benchmarks --help`."""
