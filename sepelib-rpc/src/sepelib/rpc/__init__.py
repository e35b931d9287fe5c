"""Thrift and XML-RPC clients that reconnect and never hand one caller's answer to another.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
