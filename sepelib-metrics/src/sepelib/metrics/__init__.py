"""Counters, gauges, percentiles and rates in a registry that renders them.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
