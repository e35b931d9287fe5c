"""Clients to eighteen services, and fakes of them that behave.

    from sepelib.yandex.startrek import StartrekClient      # one module, one client, per service
    from sepelib.yandex.testing import FakeStartrek         # and its fake

Importing this package imports nothing.
"""
