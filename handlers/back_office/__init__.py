"""Handlers of `pipelines/back_office.yaml`: the part of a shop that its customers do not see."""
