"""A trading process that logs for a long time, and what it holds meanwhile: `make soak`."""
