"""Datasets of evaluated placements: what runs and stores recorded, as Parquet and for Minari."""
