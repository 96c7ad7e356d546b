"""Trees of files: found, classified, copied faithfully, recorded. In: a folder. Out: entries, copies, a manifest."""
