"""GreenThread: a greenlet with the words of threading.Thread."""
