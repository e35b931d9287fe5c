"""A web server with built-in handlers, request helpers and authentication for Flask on gevent.

server          Server: /ping, /version, /config/, /metrics, limits, a stop that loses no request
h               typed arguments, JSON bodies, one form for errors, ETags, pages, streams
testing         a Server inside of a test, a service in a child process, a client that misbehaves
pytest_plugin   fixtures `server` and `slow_client`
"""
