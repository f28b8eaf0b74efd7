"""Run one scenario for one contestant and print the result as a line of JSON.

    BENCHMARK_URL=postgresql://user@host/empty_database python -P benchmarks/worker.py upstream W1 --seconds 2

It runs in the contestant's virtual environment, and calls `benchmarks.one_run`.
"""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path


def import_benchmarks() -> None:
    """Import this directory as `benchmarks` without the checkout on the path.

    Otherwise every contestant would import our own package, which has the same name as upstream's.
    """
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "benchmarks", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules["benchmarks"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)


if __name__ == "__main__":
    import_benchmarks()
    sys.exit(import_module("benchmarks.one_run").main(sys.argv[1:]))
