"""`python -m sepelib.zookeeper`: see `sepelib.zookeeper._cli`."""

if __name__ == "__main__":
    try:
        from sepelib.zookeeper._cli import main

        status = main()
    except KeyboardInterrupt:  # while it is being imported
        status = 130
    raise SystemExit(status)
