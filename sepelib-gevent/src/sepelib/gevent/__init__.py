"""GreenThread: a greenlet with the words of threading.Thread.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
