"""One run of a sweep of chaos cells, to be killed: python chaos_run.py ENGINE STORE SPEC.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> None:
    import chaos_kind  # noqa: F401

    import pyhess as ph

    engine, store, spec = sys.argv[1:]
    content = json.loads(Path(spec).read_text())
    if engine == "dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(n_workers=2, threads_per_worker=1, protocol="tcp", dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            result = ph.sweep(content, store, client, retries=20)
    else:
        result = ph.sweep(content, store, int(engine), grace=20.0)
    print(json.dumps(dict(result.counts)))
    sys.exit(0 if result.stopped_by is None else 128 + result.stopped_by)


if __name__ == "__main__":
    main()
