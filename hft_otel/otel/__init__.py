"""Records as OpenTelemetry has them: log records, spans with events, instruments."""
