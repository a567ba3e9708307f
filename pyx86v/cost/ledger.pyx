# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of causes and prices for Python; the ledger itself is inline code in ledger.pxd."""
