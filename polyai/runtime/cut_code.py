"""Where parts of the rows begin, natively: a handful of binary searches takes less time than one call of NumPy.

    cut(bounds, rows, share, parts, cuts):  cuts[k] = the first row r with bounds[r] >= k * share, for 0 < k < parts;
                                            the largest bounds[cuts[k + 1]] - bounds[cuts[k]]
"""

from __future__ import annotations


def text(linkage: str = "") -> str:
    """`cut` as LLVM IR, of some linkage. `bounds` has `rows + 1` numbers, `cuts` has `parts + 1`, of which the ends are set. No part is
    larger than what is returned, also where the numbers do not begin at 0 or do not rise."""
    return f"\ndefine {linkage}i64 @cut(ptr %bounds, i64 %rows, i64 %share, i64 %parts, ptr %cuts) {{" + """
entry:
  %start = load i64, ptr %bounds
  br label %part
part:
  %k = phi i64 [ 1, %entry ], [ %k.next, %found ]
  %before = phi i64 [ 0, %entry ], [ %low, %found ]
  %below = phi i64 [ %start, %entry ], [ %bound, %found ]
  %most = phi i64 [ 0, %entry ], [ %most.next, %found ]
  %wanted = mul i64 %k, %share
  %inner = icmp slt i64 %k, %parts
  %first = select i1 %inner, i64 %before, i64 %rows
  br label %look
look:
  %low = phi i64 [ %first, %part ], [ %low.next, %halve ]
  %high = phi i64 [ %rows, %part ], [ %high.next, %halve ]
  %left = icmp slt i64 %low, %high
  br i1 %left, label %halve, label %found
halve:
  %sum = add i64 %low, %high
  %middle = lshr i64 %sum, 1
  %place = getelementptr i64, ptr %bounds, i64 %middle
  %value = load i64, ptr %place
  %less = icmp slt i64 %value, %wanted
  %after = add i64 %middle, 1
  %low.next = select i1 %less, i64 %after, i64 %low
  %high.next = select i1 %less, i64 %high, i64 %middle
  br label %look
found:
  %row = getelementptr i64, ptr %bounds, i64 %low
  %bound = load i64, ptr %row
  %size = sub i64 %bound, %below
  %larger = icmp sgt i64 %size, %most
  %most.next = select i1 %larger, i64 %size, i64 %most
  %slot = getelementptr i64, ptr %cuts, i64 %k
  store i64 %low, ptr %slot
  %k.next = add i64 %k, 1
  %done = icmp sge i64 %k, %parts
  br i1 %done, label %end, label %part
end:
  ret i64 %most.next
}
"""
