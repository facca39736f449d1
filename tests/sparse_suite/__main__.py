"""`python -m tests.sparse_suite`: how much of the suite works. `--update`: take out of the list of refusals what works now.

`--rewrite` runs every group and writes the list anew: for new expressions. Reviewed like code.
"""

from __future__ import annotations

import sys
from collections import Counter

from tests.sparse_suite import cases


def report(full: bool) -> str:
    """A table of groups and cases by family, from the list of what is refused."""
    listed, total, works = cases.refused(), Counter[str](), Counter[str]()
    groups = cases.groups(full)
    for group in groups:
        total[group.expression.family] += len(group.variants)
        works[group.expression.family] += len(group.variants) * (str(group) not in listed)
    lines = [f"{'family':28}{'cases':>8}{'work':>8}"]
    lines += [f"{family:28}{total[family]:8}{works[family]:8}" for family in total]
    lines.append(f"{'all':28}{total.total():8}{works.total():8}   {len(groups)} kernels' worth of groups")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if "--update" in arguments or "--rewrite" in arguments:
        listed = cases.refused() if "--update" in arguments else None
        found, wrong = {}, []
        for group in cases.groups(full=True):
            if listed is not None and str(group) not in listed:
                continue
            try:
                reason = cases.run(group)
            except AssertionError as error:
                reason = listed[str(group)] if listed is not None else ""
                wrong.append(str(error))
            if reason:
                found[str(group)] = reason
        cases.write(found)
        print(*wrong, sep="\n")
    for full in (False, True):
        print("full" if full else "default", report(full), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
