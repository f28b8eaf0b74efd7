"""Web frameworks and Celery: one call each, in place of middleware, error handlers and dependencies of your own.

Each module imports its framework, which is not a dependency of this package: import the one that you use.
"""
