"""Keeps pytest from collecting the test files of this folder: they are wrong on purpose."""

collect_ignore_glob = ["*.test.yaml"]
