"""Many workers of one database: the cost of a dispatch, dispatches a second, and hosts with slow lines.

Needs PostgreSQL, and root for the hosts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence

from tests.e2e.command import quarry
from tests.namespaces import Network, missing
from tests.postgres_server import running_postgres

from bench import cluster_dispatch, cluster_hosts, cluster_waiting
from bench.results import Table, show

#: A server as it is installed; the tests' own loses data in a power cut.
_SETTINGS = {"max_connections": "200", "log_min_messages": "fatal"}

PARTS = ("waiting", "dispatch", "lines", "small")


def tables(parts: Sequence[str], workers: int) -> Iterator[Table]:
    """Yield the tables of the parts."""
    if reason := missing():
        raise SystemExit(reason)
    with Network() as network, running_postgres(network.database, _SETTINGS) as server:
        assert quarry("cluster", "init", server.url).code == 0
        if "waiting" in parts:
            yield cluster_waiting.table(server.url)
        if "dispatch" in parts:
            yield cluster_dispatch.table(server, workers)
        if "lines" in parts:
            yield cluster_hosts.line_table(server, network, workers)
        if "small" in parts:
            yield cluster_hosts.small_table(server, network, workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--workers", type=int, default=4, help="the most workers (default: 4)")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quarry-bench-") as folder:
        # The registry keeps jobs there, and these belong to no user.
        os.environ["XDG_STATE_HOME"] = folder
        show(tables(options.parts, options.workers), write=options.write)


if __name__ == "__main__":
    main()
