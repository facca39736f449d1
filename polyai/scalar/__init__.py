"""Numbers: element types, the one table of operations, scalar expressions and their folding."""
