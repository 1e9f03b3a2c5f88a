"""Reload: pipelines run in new versions, one after the other, as their files change."""
