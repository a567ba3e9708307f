# SPDX-License-Identifier: GPL-2.0-or-later
"""python -m pyx86v"""
from pyx86v.cli import main

if __name__ == "__main__":
    main()
