"""How people see results: terminal tables, self-contained HTML pages, timelines in Chrome/Perfetto trace format."""
