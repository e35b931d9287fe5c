"""terminate(): end a process and its whole tree, and tell the truth about it."""
