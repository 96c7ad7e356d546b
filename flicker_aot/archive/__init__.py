"""Archives, read from front to back. In: a file or a folder. Out: the ELF files in it, as they come by."""

from .files import Elf, Item, Limits, Passed, Seen, look_into_file, look_into_layout, look_into_open, what_is_in

__all__ = [
    "Elf",
    "Item",
    "Limits",
    "Passed",
    "Seen",
    "look_into_file",
    "look_into_layout",
    "look_into_open",
    "what_is_in",
]
