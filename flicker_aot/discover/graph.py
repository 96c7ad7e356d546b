"""The control flow graph of one function. In: decoded instructions and jump tables. Out: a networkx graph of blocks.

The one module that imports networkx, inside the function: the import costs 0.1 s, and most sites need no graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model.code import Flow, Insn
from .flow import Decoded
from .insns import falls_through

if TYPE_CHECKING:
    import networkx


def block_graph(decoded: Decoded, entries: frozenset[int]) -> networkx.DiGraph[int]:
    """Nodes: the vaddr of each block's first instruction, with ``insns`` (a tuple of Insn); edges: possible transfers.

    ``entries`` start blocks too. A call ends no block and adds no edge: control comes back behind it.
    """
    import networkx

    leaders = _leaders(decoded, entries)
    graph: Any = networkx.DiGraph()
    for leader in leaders:
        block = _block(leader, decoded, leaders)
        graph.add_node(leader, insns=block)
        last = block[-1]
        if falls_through(last) and last.end in decoded.insns and last.vaddr not in decoded.last_calls:
            graph.add_edge(leader, last.end)
        if last.target in decoded.insns:
            graph.add_edge(leader, last.target)
    blocks_by_jump = {graph.nodes[leader]["insns"][-1].vaddr: leader for leader in leaders}
    for table in decoded.tables:
        for target in table.targets:
            if target in decoded.insns and table.jump in blocks_by_jump:
                graph.add_edge(blocks_by_jump[table.jump], target)
    return graph


def _leaders(decoded: Decoded, entries: frozenset[int]) -> frozenset[int]:
    insns = decoded.insns
    found = {entry for entry in entries if entry in insns}
    found |= {target for table in decoded.tables for target in table.targets if target in insns}
    ends = {i.end for i in insns.values() if falls_through(i) and i.flow is not Flow.BRANCH}
    ends -= {insns[call].end for call in decoded.last_calls}
    for insn in insns.values():
        if insn.target in insns and insn.target is not None:
            found.add(insn.target)
        if insn.flow is Flow.BRANCH and insn.end in insns:
            found.add(insn.end)
    return frozenset(found | (insns.keys() - ends))


def _block(leader: int, decoded: Decoded, leaders: frozenset[int]) -> tuple[Insn, ...]:
    insns = decoded.insns
    block = [insns[leader]]
    while falls_through(block[-1]) and block[-1].flow is not Flow.BRANCH and block[-1].vaddr not in decoded.last_calls:
        at = block[-1].end
        if at in leaders or at not in insns:
            break
        block.append(insns[at])
    return tuple(block)
