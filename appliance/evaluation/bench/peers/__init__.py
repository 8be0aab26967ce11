"""Others who do what steps 2 to 5 do, each in an environment and a process of its own.

`environment` makes the environment from the peer's lock file, `worker` is what runs in it (a plain script
that imports nothing of Drempel), and `process` speaks with it.
"""
