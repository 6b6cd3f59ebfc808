"""The trail of audit events: chained by hashes, anchored outside, kept, and proven complete."""
