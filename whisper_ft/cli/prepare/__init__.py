"""Any source as parquet shards: `python -m whisper_ft.prepare --data.path FILE_OR_DIR --out DIR`."""
