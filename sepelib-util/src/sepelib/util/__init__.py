"""Retry, deadlines, atomic files, processes, fault-injecting test servers: the standard library only."""
