"""``make bench``: the benchmarks, printed as tables and written as JSON.

``python -m tests.bench [--only budgets|starts|swarm|throughput|timers|workflows] [--output bench.json] [--posts N]``.
Uses the platform at ``ATTUNE_API_URL`` (and its AWS at ``AWS_ENDPOINT_URL``), or starts one of its own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where tests find their helpers, too

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
