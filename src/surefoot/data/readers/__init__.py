"""Raw data as a stream of Arrow record batches: `open.open_source`, and a file for each format."""
