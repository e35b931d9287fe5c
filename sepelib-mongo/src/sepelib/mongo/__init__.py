"""Fields, find_and_modify, sequential ids and a real database for tests, on mongoengine.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
