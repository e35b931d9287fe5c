"""terminate(): end a process and its whole tree, and tell the truth about it.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
