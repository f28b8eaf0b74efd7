"""Measure this package against its peers and against what the database itself can do: `python -m benchmarks --help`.

A run is made of many short processes, one for each scenario, contestant and round. `rounds` starts them in turn;
`worker.py` is such a process, in the virtual environment of its contestant.
"""
