"""Parts of the study of clusters, in `benchmarks/cluster.py`."""
