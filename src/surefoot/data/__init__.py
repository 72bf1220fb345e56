"""From raw rows to tensors: reading, cleaning, splitting, fitting, the batch store, the order of rows."""
