"""A small trading system that logs through hft_otel: parsers, websockets, an arbitrage engine, a replay."""
