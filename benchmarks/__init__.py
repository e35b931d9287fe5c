"""What our parts cost, each beside the peer that a user would pick instead, in the same run."""
