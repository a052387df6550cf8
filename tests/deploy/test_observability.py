"""Dashboard and alerts use metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from simulator.live import LiveSimulator

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NAME = re.compile(r"\bkimi_[a-z_]+")


def used_in_dashboard() -> set[str]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/kimi-ai-2api.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {name for expression in expressions for name in NAME.findall(expression)}


def used_in_alerts() -> set[str]:
    text = (DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8")
    expressions = "\n".join(line for line in text.splitlines() if "summary:" not in line)
    return set(NAME.findall(expressions))


def test_dashboard_and_alerts_use_only_metrics_that_a_worker_has(client: httpx.Client, site: LiveSimulator) -> None:
    """Every metric that is drawn or watched is one that /metrics shows after a call or two."""
    body = {"stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    text = client.get("/metrics").text
    declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used_in_dashboard() | used_in_alerts()}
    assert len(used) > 10
    assert used - declared == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(("check", "file"), [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_accepts_the_files(check: str, file: str) -> None:
    """Prometheus' own checker finds no fault in rules and configuration."""
    command = ["promtool", "check", check, *(["--syntax-only"] if check == "config" else []), file]
    result = subprocess.run(command, cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _series(name: str, values: str) -> dict[str, str]:
    return {"series": f'{name}{{instance="app1",of="journal"}}', "values": values}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(
    ("alert", "series", "fires"),
    [
        ("KimiDatabaseDown", [_series("kimi_database_up", "0x30")], True),
        ("KimiDatabaseDown", [_series("kimi_database_up", "1x30")], False),
        ("KimiLedgerStuck", [_series("kimi_ledger_waiting", "0+5x30"), _series("kimi_ledger_written", "9x30")], True),
        # As many as ever wait, because as many as ever come.
        ("KimiLedgerStuck", [_series("kimi_ledger_waiting", "40x30"), _series("kimi_ledger_written", "0+5x30")], False),
        # Nobody calls.
        ("KimiLedgerStuck", [_series("kimi_ledger_waiting", "0x30"), _series("kimi_ledger_written", "9x30")], False),
        ("KimiLedgerLosing", [_series("kimi_ledger_lost", "0x25 3x5")], True),
        # What was lost long ago.
        ("KimiLedgerLosing", [_series("kimi_ledger_lost", "3x30")], False),
    ],
)
def test_alerts_of_the_database(tmp_path: Path, alert: str, series: list[dict[str, str]], fires: bool) -> None:
    """An alert fires after half an hour of trouble, and doesn't for what only looks like it."""
    firing = {"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})', "eval_time": "30m"}
    test = {
        "rule_files": [str(DEPLOY / "prometheus/alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [firing | {"exp_samples": [{"labels": "{}", "value": 1}] if fires else []}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
