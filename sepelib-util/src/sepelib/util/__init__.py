"""What a daemon needs beside the standard library, made of the standard library only.

Each module stands alone and is imported by its own name: `retry`, `deadline`, `cache`,
`instrument`, `exceptions`, `fs`, `processes`, `secrets`, `url`, `text`, `timers`; for tests
`testing` (no pytest) and `pytest_plugin` (fixtures).
"""
