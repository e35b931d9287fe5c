"""Long runs under faults, and a judge that reads what happened.

    python -m soak zookeeper --seconds 600          # ./dev soak

    schedule      what goes wrong and when, from a seed
    nemesis       does it to the workers and the servers
    slot          a worker's place: its process, its proxies, what it wrote
    worker        the process that uses all recipes and writes down what it believes
    recipes       one module each: what is done with it; ours and kazoo's (the control) in one shape
    libraries     the clients of both
    observer      asks the servers past all faults
    history       what all of them wrote, one line an event
    checker       pure: history in, verdict out; checks: the parts of it, by recipe
    testing       histories made by hand
    run           one seed from the first server to the verdict
    report        the verdict for people; excerpt: the events around a violation

After Jepsen (K. Kingsbury): clients in processes of their own, faults by a plan, an append-only
history on one clock, and a check that knows nothing of how the history came to be.
"""
