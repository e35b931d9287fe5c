"""Clients to eighteen services, and fakes of them that behave."""
