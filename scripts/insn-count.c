/* A plugin for qemu-user: counts the instructions that a program executes, and writes the number at its end.
 *
 *   gcc -O2 -Wall -Wextra -shared -fPIC -o insn-count.so scripts/insn-count.c
 *   qemu-aarch64 -plugin ./insn-count.so,out=FILE PROGRAM
 *
 * Counted are whole blocks as they are entered. A block that is left half-way (a signal) counts whole, and
 * threads that count at the same time may lose some: meant for one thread, where both are no matter.
 * Debian ships QEMU without qemu-plugin.h, so what is used of version 1 of that interface stands here. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct qemu_plugin_tb;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);

int qemu_plugin_version = 1;

static const int ADD_U64 = 0; /* the one operation that QEMU puts inline */
static uint64_t count;
static char path[4096];

static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &count, qemu_plugin_tb_n_insns(block));
}

static void ended(uint64_t id, void *unused)
{
    FILE *file = fopen(path, "w");
    (void)id, (void)unused;
    if (file) {
        fprintf(file, "%" PRIu64 "\n", count);
        fclose(file);
    }
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || strlen(argv[0] + 4) >= sizeof path)
        return -1;
    strcpy(path, argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
