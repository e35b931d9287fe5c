"""Client, locks, conditions and singletons that tell the truth under faults, on kazoo.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
