"""Long runs under faults, and a judge that reads what happened.

    python -m soak zookeeper --seconds 600          # ./dev soak

    schedule      what goes wrong and when, from a seed
    nemesis       does it to the workers and the servers
    slot          a worker's place: its process, its proxies, what it wrote
    worker        the process that takes locks and writes down what it believes
    libraries     ours and kazoo (the control) in one shape for the worker
    history       what all of them wrote, one line an event
    checker       pure: history in, verdict out
    run           one seed from the first server to the verdict
    report        the verdict for people; excerpt: the events around a violation

After Jepsen (K. Kingsbury): clients in processes of their own, faults by a plan, an append-only
history on one clock, and a check that knows nothing of how the history came to be.
"""
