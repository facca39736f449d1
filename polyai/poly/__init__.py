"""Geometry: statements with integer sets as domains, access relations, dependences, and one isl schedule tree."""
