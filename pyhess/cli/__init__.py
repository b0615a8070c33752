"""The command line; no mathematics here, only the public functions of the package.

Exit codes: 0 done; 1 cells of a sweep that failed; 2 wrong usage or settings; 3 data or files that cannot be read, cannot be
written or do not fit; 4 numerical failure; 5 a sweep's store that is in use, of a newer version or none; 6 a claim that does not
hold (`verify`); 7 a claim of which a part could not be checked (`verify`); 130 interrupted (what was found is printed or saved).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``pyhess``."""
    try:
        from .app import app
    except ImportError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"pyhess: the command line needs {error.name}; pip install 'pyhess[cli]'.")
    app(prog_name="pyhess")
