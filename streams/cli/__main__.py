"""`reptide`, and `python -m streams.cli`: the command in a process of its own, which ends at once when all is done.

Python would take apart first what torch alone consists of, which takes a tenth of the time of a short run.
"""

from __future__ import annotations

import atexit
import os
import sys


def command() -> None:
    """Run the command line, and end."""
    status = 1  # of an error that nobody expected

    def end() -> None:
        """End here: this was asked for before anything else, so whatever else is to be done at the end has been."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(end)
    from streams.cli.app import INTERRUPTED, main

    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt:
        status = INTERRUPTED
        raise


if __name__ == "__main__":
    command()
