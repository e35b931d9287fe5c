"""Thrift and XML-RPC clients that reconnect and never hand one caller's answer to another."""
