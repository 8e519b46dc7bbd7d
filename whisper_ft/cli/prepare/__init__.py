"""Conversion of any data source to parquet shards."""
