"""A web server with built-in handlers, request helpers and authentication for Flask on gevent."""
