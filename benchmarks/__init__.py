"""Compare this package with its peers and with the limits of the database: `python -m benchmarks --help`.

A run consists of many short processes, one per scenario, contestant and round. `rounds` starts them in turn;
`worker.py` is such a process, in its contestant's virtual environment.
"""
