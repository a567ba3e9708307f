/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A plugin for QEMU's TCG that counts executed instructions and prints the number at the end, as -d plugin text.
 * Debian has no package with qemu-plugin.h, so what is used of the interface (version 1) is declared here.
 */
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*at_exit)(plugin_id, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
void qemu_plugin_register_atexit_cb(plugin_id, at_exit, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int operation, void *, uint64_t);
void qemu_plugin_outs(const char *);

enum { ADD_U64 = 0 };
__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t count;

static void count_block(plugin_id id, struct qemu_plugin_tb *block)
{
    size_t n = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (size_t i = 0; i < n; i++)
        qemu_plugin_register_vcpu_insn_exec_inline(qemu_plugin_tb_get_insn(block, i), ADD_U64, &count, 1);
}

static void print(plugin_id id, void *data)
{
    char text[64];
    (void)id, (void)data;
    snprintf(text, sizeof text, "instructions: %llu\n", (unsigned long long)count);
    qemu_plugin_outs(text);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
    qemu_plugin_register_atexit_cb(id, print, 0);
    return 0;
}
