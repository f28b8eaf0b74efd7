"""The command line. Each verb is one function, and calls one method of ``Tenancy`` or of ``tenancy.operations.doctor``.

The modules of this package import nothing at their top that loads a database, so that ``tenancy --help`` is quick.
"""
