"""Thrift and XML-RPC clients that reconnect and never hand one caller's answer to another.

Nothing is imported here, so that each is paid for by its users only:

    from sepelib.rpc.xml import ServerProxy, xmlrpc_call
"""
