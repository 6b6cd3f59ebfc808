"""One correlation id joins what a task says: text, audit event, audit span, and the task's own span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.real.processes import otlp, run_script, write_config
from tests.real.running import Collector

TASKS = 20

PROGRAM = f"""
import asyncio, json, random, sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from hft_otel import LogConfig, LoggerFactory

config = LogConfig.from_yaml("logging.yaml")
engine = LoggerFactory.create_logger("arbitrage", config)
desk = LoggerFactory.create_logger("desk", config)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{{sys.argv[1]}}/v1/traces")))
tracer = provider.get_tracer("user")

def settle(task):
    desk.warning("settled", task=task, where="to_thread")
    desk.audit("order_settled", task=task)

async def order(task):
    await asyncio.sleep(random.random() / 50)
    desk.info("order sent", task=task, where="create_task")
    await asyncio.to_thread(settle, task)

async def pursue(task):
    with tracer.start_as_current_span("pursue", attributes={{"task": task}}), engine.scoped(correlation_id=f"c-{{task}}"):
        engine.info("pursuing", task=task, where="task")
        engine.audit("opportunity_detected", task=task)
        legs = [asyncio.create_task(order(task)) for _ in range(2)]
        await asyncio.sleep(random.random() / 50)
        await asyncio.gather(*legs)
        engine.counter("pursued")
    engine.info("done", task=task, where="after")

async def main():
    await asyncio.gather(*(pursue(task) for task in range({TASKS})))
    return await engine.flush(30)

report = asyncio.run(main())
provider.shutdown()
print(json.dumps({{"flushed": bool(report), "report": str(report)}}))
"""


def test_one_correlation_id_is_on_text_audit_and_spans_of_a_task(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    told = run_script(PROGRAM, otel.endpoint, cwd=tmp_path).told
    otel.stop()
    assert told["flushed"], told["report"]

    tasks = {span["attributes"]["task"]: span for span in otel.spans() if span["name"] == "pursue"}
    assert set(tasks) == set(range(TASKS))
    for task, span in tasks.items():
        own = {"correlation_id": f"c-{task}", "trace_id": span["trace_id"], "span_id": span["span_id"]}
        assert span["attributes"]["correlation_id"] == own["correlation_id"]
        records = [record for record in otel.logs() if record["attributes"]["task"] == task]
        said = [record for record in records if record["attributes"].get("where") != "after"]
        assert Counter(record["attributes"].get("where", record["event_name"]) for record in said) == {
            "task": 1,
            "create_task": 2,
            "to_thread": 2,
            "audit.opportunity_detected": 1,
            "audit.order_settled": 2,
        }
        for record in said:
            found = {"correlation_id": record["attributes"].get("correlation_id")}
            assert found | {key: record[key] for key in ("trace_id", "span_id")} == own, record

        audits = [s for s in otel.spans() if s["events"] and s["events"][0]["attributes"]["task"] == task]
        assert Counter(span["name"] for span in audits) == {
            "audit.opportunity_detected": 1,
            "audit.order_settled": 2,
        }
        for audit in audits:
            assert (audit["trace_id"], audit["parent_span_id"]) == (own["trace_id"], own["span_id"])
            assert audit["events"][0]["attributes"]["correlation_id"] == own["correlation_id"]

        (after,) = (record for record in records if record["attributes"].get("where") == "after")
        assert "correlation_id" not in after["attributes"]
        assert after["trace_id"] == ""


def test_correlation_id_is_no_attribute_of_a_metric(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    """Every task would be a time series of its own."""
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    run_script(PROGRAM, otel.endpoint, cwd=tmp_path)
    otel.stop()
    points = [point for point in otel.metrics() if point["name"] == "hft.pursued"]
    assert points[-1]["value"] == TASKS
    assert all(point["attributes"] == {} for point in points)
