"""The report over many runs: read run folders, group them into configurations, estimate, compare, draw, write."""
