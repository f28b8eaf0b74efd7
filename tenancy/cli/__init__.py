"""The command line. Each command is a function that calls ``Tenancy`` or ``tenancy.operations``.

No module of this package imports database code at module level, so that ``tenancy --help`` is fast.
"""
