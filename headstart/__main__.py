"""`python -m headstart` is `headstart`."""

from __future__ import annotations

import sys

from headstart.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
