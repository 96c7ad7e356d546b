"""Coverage over a corpus. In: paths. Out: a result for each distinct ELF file in them, kept in a cache."""

from .run import CorpusRequest, Examined, examine_corpus

__all__ = ["CorpusRequest", "Examined", "examine_corpus"]
