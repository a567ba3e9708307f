# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of VMCS fields for Python; the rules themselves are inline code in fields.pxd."""

def names():
    """Field name -> encoding, in the order of SDM 3D appendix B."""
    return {field.name: field.value for field in Field}


def exists(unsigned int encoding):
    """Whether VMREAD accepts the encoding."""
    return bool(field_exists(encoding))
