"""Raw data as a stream of Arrow record batches: `open_source.open_source`, and a file for each format."""
