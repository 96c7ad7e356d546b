"""Bad inputs and bad paths: one clear line, the right exit code, nothing written."""
