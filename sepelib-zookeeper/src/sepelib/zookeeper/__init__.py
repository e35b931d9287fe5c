"""Client, locks, conditions and singletons that tell the truth under faults, on kazoo."""
