"""Pins taken out of the index: into one file, or into a folder of Parquet files that is the index at one moment."""
