/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef STRICT_H
#define STRICT_H

/* Execute the instruction with these inputs: it has to raise #GP(0), or (ACCEPTED) nothing. */
#define REFUSED(what, instruction, ...)                                                           \
    do {                                                                                          \
        TRY(instruction, : : __VA_ARGS__);                                                        \
        print("%s: %s\n", what, caught.vector == 13 ? "#GP" : caught.vector == NO_FAULT ? "accepted" : "other"); \
        check_fault(13, 0, what);                                                                 \
    } while (0)
#define ACCEPTED(what, instruction, ...)                                                          \
    do {                                                                                          \
        TRY(instruction, : : __VA_ARGS__);                                                        \
        print("%s: %s\n", what, caught.vector == NO_FAULT ? "accepted" : "refused");              \
        check_no_fault(what);                                                                     \
    } while (0)
#endif
