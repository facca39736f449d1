"""Data to try PolyAI on: shipped matrices, readers of the usual file formats, seeded generators."""

from polyai.datasets.files import Graph, folder, read, walk
from polyai.datasets.generate import bigbird, rmat, stencil
from polyai.datasets.shipped import digits, flights, load_demo

__all__ = ["Graph", "bigbird", "digits", "flights", "folder", "load_demo", "read", "rmat", "stencil", "walk"]
