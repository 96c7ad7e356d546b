"""flicker-aot: redirect every system call of an x86-64 Linux ELF file through a hook, ahead of time."""

__version__ = "0.1.0"
