"""Values that are several arrays: ragged batches, sparse arrays with fill values."""
