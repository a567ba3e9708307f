# SPDX-License-Identifier: GPL-2.0-or-later
"""The block model: how many cycles a basic block takes on an out-of-order processor (model.pyx)."""
