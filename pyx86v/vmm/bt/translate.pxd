# SPDX-License-Identifier: GPL-2.0-or-later
from libc.stdint cimport uint8_t, uint64_t
from pyx86v.vmm.bt.state cimport BtMode, BtTranslator, BtUnit

cdef void bt_translator_init(BtTranslator* t) noexcept nogil
cdef int bt_translate(const BtTranslator* t, const uint8_t* code, int available, uint64_t eip, const BtMode* mode,
                      uint64_t tc_linear, uint8_t* out, int room, BtUnit* u) noexcept nogil
