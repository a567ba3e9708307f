# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of the VMRUN rules for Python; rules.pxd is the list."""

def rules():
    """Rule name -> number."""
    return {rule.name: rule.value for rule in Rule if rule.name != "RULE_NONE"}
