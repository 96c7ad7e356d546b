"""`make corpus`: rewrites the real static programs of manifest.toml and compares each with its original."""
