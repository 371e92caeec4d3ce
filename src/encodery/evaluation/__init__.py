"""Output + truth -> numbers: metrics, baselines, the report."""
