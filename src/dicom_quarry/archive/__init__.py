"""The archive (PACS): one interface, and an adapter for each protocol."""
