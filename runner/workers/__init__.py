"""Several processes that run the same pipelines on one machine (`runner up --workers`), under one master."""

ENV_VARIABLE = "RUNNER_UP_AS_WORKER"
"""The environment variable that makes a `runner up` a worker. It is taken out at once: handlers start programs, too."""
