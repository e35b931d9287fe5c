"""svnfile: read and commit single files of a Subversion repository without a working copy."""
