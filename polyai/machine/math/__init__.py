"""Elementary functions in vector IR, for floats and doubles, scalars and vectors alike.

The formulas are written over `Num`; each file states its error bounds in units in the last place (ulp), measured by
tests/machine/test_math.py. What has no formula goes lane by lane to the C library (lanes.py).
"""
