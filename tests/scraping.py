"""Reads /metrics as Prometheus does: with the parser of prometheus-client, not with code of ours."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def fetch(port: int, path: str = "/metrics") -> str:
    """Return what is answered with 200; raises OSError where nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
        return text
    finally:
        connection.close()


def parse(text: str) -> Series:
    """Return every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scrape:
    """One scrape. `scrape("runner_messages_total", outcome="handled")` is the sum of the series with these labels."""

    def __init__(self, port: int) -> None:
        self.text = fetch(port)
        self.series = parse(self.text)

    def __call__(self, name: str, **labels: str) -> float | None:
        wanted = frozenset(labels.items())
        found = [value for (each, its), value in self.series.items() if each == name and wanted <= its]
        return sum(found) if found else None
