# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of the VM-entry rules for Python; rules.pxd is the list."""

def rules():
    """Rule name -> number, without the markers of the three groups."""
    return {rule.name: rule.value for rule in Rule if rule.name != "RULE_NONE" and not rule.name.endswith("_LAST")}
