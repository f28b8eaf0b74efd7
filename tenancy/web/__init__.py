"""Web middleware: resolve each request to its tenant, for ASGI and WSGI."""
