"""Block 2.2 of the plan, run as the body of a subclass of PrometheusBackend."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

from hft_otel.destinations.prometheus import PrometheusBackend as Base
from hft_otel.record import LogRecord, LogType
from tests.unit.otlp_stand_in import metric, text

BLOCK = '''
class PrometheusBackend(LogBackend):
    """
    Batched metrics to Prometheus push gateway.
    Zero formatting overhead - direct metric push.
    """
    
    def should_handle(self, record: LogRecord) -> bool:
        return record.log_type == LogType.METRIC
    
    async def write(self, record: LogRecord) -> None:
        # Buffer for batching - no formatting overhead
        self._buffer.append({
            'name': f"hft_{record.metric_name}",
            'value': record.metric_value,
            'labels': {
                'exchange': record.exchange,
                'symbol': record.symbol,
                **record.metric_tags
            },
            'timestamp': record.timestamp
        })
        
        if len(self._buffer) >= self.batch_size:
            await self.flush()
    
    async def flush(self) -> None:
        # Push all buffered metrics to Prometheus
        await self._push_to_prometheus(self._buffer)
        self._buffer.clear()
'''  # noqa: W293  # the plan's own text


def planned() -> Any:
    names: dict[str, Any] = {"LogBackend": Base, "LogRecord": LogRecord, "LogType": LogType}
    exec(BLOCK, names)
    return names["PrometheusBackend"]


def page_of(backend: Any) -> str:
    with urllib.request.urlopen(backend.scrape_url, timeout=5) as response:
        return str(response.read().decode())


def test_plan_block_measures_and_flushes_by_batch_size() -> None:
    backend = planned()({"port": 0, "batch_size": 3})
    try:
        assert backend.should_handle(metric("x", 1))
        assert not backend.should_handle(text("x"))
        first = metric("orderbook_depth", 5, exchange="mexc")
        asyncio.run(backend.write(first))
        asyncio.run(backend.write(metric("orderbook_depth", 6, exchange="gateio")))
        assert len(backend._buffer) == 2
        assert backend.scrape_url is None
        asyncio.run(backend.write(metric("orderbook_depth", 7, exchange="mexc", side="bid")))
        assert backend._buffer == []
        page = page_of(backend)
        assert 'hft_orderbook_depth{exchange="mexc",side=""} 5.0' in page
        assert 'hft_orderbook_depth{exchange="gateio",side=""} 6.0' in page
        assert 'hft_orderbook_depth{exchange="mexc",side="bid"} 7.0' in page
    finally:
        backend.close(2.0)


def test_plan_block_works_where_init_was_not_called(monkeypatch: Any) -> None:
    class Own(planned()):  # type: ignore[misc]  # the class is made at run time
        def __init__(self) -> None:
            self.batch_size = 1

    from hft_otel.config import PrometheusConfig

    monkeypatch.setattr(Base, "_config", PrometheusConfig(port=0))
    first, second = Own(), Own()
    try:
        asyncio.run(first.write(metric("x", 5)))
        assert "hft_x 5.0" in page_of(first)
        assert second._buffer is not first._buffer
    finally:
        first.close(2.0)


def test_plan_block_pushes_to_the_gateway() -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    gateway = f"127.0.0.1:{server.server_port}"
    backend = planned()({"scrape": False, "push_gateway": gateway, "batch_size": 2, "flush_interval": 3600})
    try:
        asyncio.run(backend.write(metric("depth", 5)))
        asyncio.run(backend.write(metric("depth", 6)))
        assert "hft_depth 6.0" in bodies[-1]
    finally:
        backend.close(2.0)
        server.shutdown()
        server.server_close()
