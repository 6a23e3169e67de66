"""How images are read, changed and written: their headers, their sizes step by step, their pixels."""
