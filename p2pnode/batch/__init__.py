"""Many requests from a file, their answers into another. Start reading at `batch.run`."""
