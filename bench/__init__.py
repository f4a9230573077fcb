"""Benches: what Quarry does, beside what people have."""
