"""The boundary: callers write packed records into mapped memory, one worker reads them."""
