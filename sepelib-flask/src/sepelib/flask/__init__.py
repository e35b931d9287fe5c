"""A web server with built-in handlers, request helpers and authentication for Flask on gevent.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
