"""Generic ELF reading, no ideas of this project but its note's name. In: file bytes. Out: ``Image`` and tables."""
