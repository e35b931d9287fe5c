"""Clients to eighteen services, and fakes of them that behave.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
