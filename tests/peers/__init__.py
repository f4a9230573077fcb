"""Real peers for tests: archives, receivers, a corpus, and a relay that sees what crosses the wire."""
