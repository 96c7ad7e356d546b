/* Macros of the assembly traps (corpus/manifest.toml). Each program checks itself, writes "ok" and ends with 0, or with the number
 * of the check that failed. The calls that it makes give the same everywhere: sched_yield 0, close(-1) -EBADF,
 * sched_getscheduler(-1) -EINVAL. Macros' names are not case-sensitive in gas. */
#define YIELD 24
#define CLOSE 3
#define SCHEDULER 145
#define EBADF 9
#define EINVAL 22

/* Bytes that are no padding, more than a jmp rel8 reaches: no short jump saves a site that is meant to be hard. */
#define FAR .fill 150, 1, 0x98

        .macro  FUNC name
        .globl  \name
        .type   \name, @function
\name:
        .cfi_startproc
        .endm

        .macro  ENDF name
        .cfi_endproc
        .size   \name, . - \name
        .endm

        /* rax is `value`, else the program ends with `number`. */
        .macro  CHECK number, value
        mov     $\number, %ebx
        cmp     $\value, %rax
        jne     fail
        .endm

        /* `function` with a call's number in rax and -1 in rdi gives `value`. */
        .macro  EXPECT number, function, nr, value
        mov     $-1, %rdi
        mov     $\nr, %eax
        call    \function
        CHECK   \number, \value
        .endm

        /* Bytes here, and a copy of them where nothing is patched. */
        .macro  EMBED name, bytes:vararg
.L\name: .byte  \bytes
        .pushsection .rodata
.Lcopy_\name:
        .byte   \bytes
        .popsection
        .endm

        /* The first `size` bytes of EMBED are what they were. */
        .macro  SAME number, name, size
        lea     .L\name(%rip), %rsi
        lea     .Lcopy_\name(%rip), %rdi
        mov     $\size, %ecx
        mov     $\number, %ebx
        repe cmpsb
        jne     fail
        .endm

        .section .text.end, "ax", @progbits
        FUNC    succeed
        mov     $1, %edi
        lea     .Lok(%rip), %rsi
        mov     $3, %edx
        mov     $1, %eax
        syscall
        xor     %ebx, %ebx
        jmp     fail
        ENDF    succeed
        FUNC    fail
        mov     %ebx, %edi
        mov     $60, %eax
        syscall
        ud2
        ENDF    fail
        .section .rodata
.Lok:   .ascii  "ok\n"
        .section .note.GNU-stack, "", @progbits
        .text
