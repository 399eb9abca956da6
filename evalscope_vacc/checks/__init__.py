"""Is this server what the configuration says? The full check of a server, and its short form before a run."""

from __future__ import annotations

from evalscope_vacc.checks.findings import CHECKS, Finding, Report
from evalscope_vacc.checks.preflight import preflight
from evalscope_vacc.checks.texts import PREFLIGHT_TEXTS

__all__ = ["CHECKS", "PREFLIGHT_TEXTS", "Finding", "Report", "preflight"]
