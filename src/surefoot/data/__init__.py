"""From raw rows to tensors: reading, splitting, normalizing, the batch store, the order of rows."""
