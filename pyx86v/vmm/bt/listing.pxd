# SPDX-License-Identifier: GPL-2.0-or-later
from pyx86v.mmu.memory cimport Ram
from pyx86v.vmm.bt.cache cimport Bt

cdef list unit_rows(const Bt* b, const Ram* ram)
cdef dict callout_counts(const Bt* b)
