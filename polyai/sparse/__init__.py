"""Sparse storage: levels, formats made of them, and the doors to scipy.sparse. Sparsity is a property of iteration."""
