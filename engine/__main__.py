"""Entry point of `python -m engine`: the command `local-learning`."""

from __future__ import annotations

import sys

from engine.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
