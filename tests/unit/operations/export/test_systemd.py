"""The systemd unit: quoting and timeouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.operations.export.systemd import systemd
from tests.unit.operations.export.exported import IN_A_FILE, known, read


def test_systemd_runs_what_is_named_and_waits_as_long_as_it_takes() -> None:
    facts = replace(known(read()), arguments=("50% off.yaml",))
    unit = systemd(facts, ["/opt/my runner/bin/runner"], Path("/srv/100%"))
    lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert lines["ExecStart"] == '"/opt/my runner/bin/runner" up "50%% off.yaml"'
    assert lines["WorkingDirectory"] == "/srv/100%%"
    assert (lines["Type"], lines["TimeoutStartSec"], lines["TimeoutStopSec"]) == ("notify", "70", "56")
    assert lines["EnvironmentFile"] == "-/etc/runner/shop.env"
    assert "API, MODE, SHOP_URL, SIZE, WORD" in unit


def test_a_broker_in_a_file_is_in_the_folder_that_systemd_makes() -> None:
    """The rest of the disk is read only for the service, whose user has no other folder."""
    unit = systemd(known(read(IN_A_FILE)), ["runner"], Path("/srv"))
    assert "\nExecStart=runner up shop.yaml --broker file:/var/lib/shop/shop.queue\n" in unit
    assert "\nDynamicUser=yes\nStateDirectory=shop\nStateDirectoryMode=0700\n" in unit
    assert "StateDirectory" not in systemd(known(read()), ["runner"], Path("/srv"))
