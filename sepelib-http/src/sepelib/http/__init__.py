"""InstrumentedSession, a requests.Session with deadlines, limits and metrics, and REST utilities."""
