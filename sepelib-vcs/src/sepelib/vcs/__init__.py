"""svnfile: read and commit single files of a Subversion repository without a working copy.

Start at `sepelib.vcs.svnfile`; a repository for tests is in `sepelib.vcs.testing`.
"""
