"""Reports of benchmarks: scores, tables, figures and pages."""
