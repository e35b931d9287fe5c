"""An uptime watchdog on gevent: the reference service of sepelib."""
