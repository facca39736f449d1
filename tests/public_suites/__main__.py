"""`python -m tests.public_suites`: take out of pending.txt what is reproduced now; prints what is left."""

from __future__ import annotations

from tests.public_suites import results, storage
from tests.public_suites import test_public_suites as suite


def main() -> None:
    left = []
    for fact in (*storage.FACTS, *results.FACTS):
        check = suite.test_storage if isinstance(fact, storage.Stored) else suite.test_results
        try:
            check(fact)
        except AssertionError as error:
            print(f"{fact.name}: {str(error).splitlines()[0]}")
        else:
            left += [fact.name] * (fact.name in suite.PENDING)
    suite.LIST.write_text("".join(f"{name}\n" for name in left))
    print(f"{len(left)} of {len(storage.FACTS) + len(results.FACTS)} facts are pending")


if __name__ == "__main__":
    main()
