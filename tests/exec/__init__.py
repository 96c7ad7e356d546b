"""Instructions and their copies, compared by a second disassembler and by the CPU."""
