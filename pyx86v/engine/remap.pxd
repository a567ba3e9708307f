# SPDX-License-Identifier: GPL-2.0-or-later
"""The portable engine finds a record by the linear address of its block.  Where another frame comes to lie at a page, or another
world to the front, its blocks are others under the same addresses, and old translations of theirs may come back unannounced."""
from libc.stdint cimport uint32_t, uint64_t
from pyx86v.arch.types cimport *
from pyx86v.engine.state cimport *

cdef inline void records_unname(Engine* e, gva_t page) noexcept nogil:
    """What was known of the blocks that begin in this page is decoded anew."""
    cdef uint64_t slot = page & (RECORD_HASH - 1)
    cdef BlockRecord* r
    cdef int i
    for i in range(PAGE_SIZE):
        r = e.hash[slot + <uint64_t>i]
        while r is not &e.records[0]:
            if r.pc >> PAGE_SHIFT == page >> PAGE_SHIFT:
                r.flags = REC_NEW
                r.cost = SLOW_COST
            r = &e.records[r.next]

cdef inline void code_page_filled(Engine* e, gva_t page, uint64_t frame) noexcept nogil:
    """The engine is about to execute from this page."""
    cdef CodePage* p = &e.code_pages[page >> PAGE_SHIFT & (CODE_PAGES - 1)]
    if not e.portable or (p.page == page | 1 and p.frame == frame):
        return
    p.page = page | 1
    p.frame = frame
    records_unname(e, page)

cdef inline void code_pages_forget(Engine* e) noexcept nogil:
    """Another world is in front."""
    cdef int i
    if not e.portable:
        return
    for i in range(CODE_PAGES):
        e.code_pages[i].page = 0
    for i in range(RECORD_HASH):
        e.hash[i] = &e.records[0]
