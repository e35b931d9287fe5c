"""Counters, gauges, percentiles and rates in a registry that renders them."""
