"""What a few places of a pattern tell about all of it, for costs only: a wrong guess makes slower code, never a wrong result."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PLACES, LEAST = 64, 16
"""Groups of rows that are looked at, and how many there must be: another version of a loop is not worth its while for fewer."""
GROUPS = (4,)
"""How many neighbouring rows may list the same coordinates, the most first. Two or three share too little: a register tile that low is
no faster than rows one by one, and matrices of meshes, where three unknowns share a node, lose the order in which they are stored."""
HEAVY = 1 << 15
"""Elements of a row from which it may be worth several threads."""
OFTEN = 0.4
"""The part of the groups that must."""


def rows_alike(pos: NDArray[Any], crd: NDArray[Any]) -> int:
    """How many neighbouring rows of a CSR pattern mostly list the same coordinates: one of GROUPS, or 1.

    Groups are those that begin at a multiple of their height. Costs some 50 microseconds, whatever the size. Reads no coordinate
    outside of `crd`, whatever `pos` holds."""
    rows = len(pos) - 1
    for height in GROUPS:
        groups = rows // height
        if groups < LEAST:
            continue
        first = np.unique(np.linspace(0, groups - 1, min(PLACES, groups)).astype(np.int64)) * height
        begins = pos[first[:, None] + np.arange(height + 1)].astype(np.int64)
        lengths = np.diff(begins, axis=1)
        sound = (lengths[:, 0] > 0) & (lengths == lengths[:, :1]).all(axis=1) & (begins[:, 0] >= 0) & (begins[:, -1] <= len(crd))
        if sound.mean() < OFTEN:
            continue
        begins, length = begins[sound, :-1], lengths[sound, :1]
        ends = (crd[begins] == crd[begins[:, :1]]).all(axis=1) & (crd[begins + length - 1] == crd[begins[:, :1] + length - 1]).all(axis=1)
        if ends.sum() < OFTEN * len(first):
            continue
        same = 0
        for begin, count in zip(begins[ends, 0].tolist(), length[ends, 0].tolist()):
            listed = crd[begin : begin + height * count].reshape(height, count)
            same += bool((listed == listed[0]).all())
        if same >= OFTEN * len(first):
            return height
    return 1


def heavy_row(pos: NDArray[Any]) -> int:
    """The length of the longest row of a CSR pattern that is heavy: `HEAVY` elements or more and an eighth of all; 0 if there is none.

    Such a row holds one of 16 places that lie evenly among the elements. Costs the same for any size; any `pos` will do."""
    rows, stored = len(pos) - 1, int(pos[-1]) if len(pos) else 0
    if rows < 1 or stored < HEAVY:
        return 0
    places = np.linspace(0, stored, 16, endpoint=False).astype(np.int64)
    found = np.clip(np.searchsorted(pos, places, side="right") - 1, 0, rows - 1)
    longest = int((pos[found + 1].astype(np.int64) - pos[found]).max())
    return longest if longest > max(HEAVY, stored // 8) else 0
