"""`python -m sepelib.zookeeper`: see `sepelib.zookeeper._cli`."""

if __name__ == "__main__":
    from sepelib.zookeeper._cli import main

    raise SystemExit(main())
