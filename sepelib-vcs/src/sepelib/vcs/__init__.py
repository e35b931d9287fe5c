"""svnfile: read and commit single files of a Subversion repository without a working copy.

Nothing here yet: this distribution has its place and its version; its code comes in a later
release, and the README says what it will hold.
"""
