"""Coverage over a corpus. In: paths. Out: a result for each distinct ELF file in them, kept in a cache."""

from .proof import read_manifest
from .run import CorpusRequest, Examined, examine_corpus, prove_manifest

__all__ = ["CorpusRequest", "Examined", "examine_corpus", "prove_manifest", "read_manifest"]
