"""Dashboard and alerts use metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

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
