"""Sizes: symbolic dimensions, exact integer expressions over them, facts, bounds, guards and buckets."""
