"""The `assert` of the checks, which `python -O` leaves alone."""

__all__ = ["require"]


def require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)
