"""Several processes that run the same pipelines on one machine (`runner up --workers`), under one master."""

ENV_VARIABLE = "RUNNER_UP_AS_WORKER"
"""Makes a `runner up` a worker. It is removed from the environment at once: handlers may start `runner`, too."""
