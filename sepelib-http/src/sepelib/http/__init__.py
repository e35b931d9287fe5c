"""InstrumentedSession, a requests.Session with deadlines, limits and metrics, and REST utilities.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
