"""`python -m polyai` is the command `polyai`."""

from __future__ import annotations

import sys

from polyai.command.cli import main

if __name__ == "__main__":
    sys.exit(main())
