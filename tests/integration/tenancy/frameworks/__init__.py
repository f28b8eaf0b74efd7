"""Web frameworks and Celery, each in its real form."""
