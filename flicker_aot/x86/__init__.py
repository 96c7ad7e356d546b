"""Machine code: ``decode`` is the one adapter of the disassembler. In: bytes and addresses. Out: frozen values."""
