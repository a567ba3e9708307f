# SPDX-License-Identifier: GPL-2.0-or-later
"""The classes of instructions that a profile has a price for, and which mnemonics belong to each.

The order is the numbering: `InsnMark` prices and `Profile.instructions` are indexed by it.  A mnemonic that stands
nowhere falls to `default`.  Some instructions get their class from their operands instead (block.pyx):
indirect jumps and calls, MOV of segment, control and debug registers, division by width, REP MOVS and REP STOS.
"""

CLASSES = {
    "default": "",
    # Charged on top of the instruction's own class, for what its explicit operands do.
    "load": "",
    "store": "",
    "lock": "",
    # Integer
    "nop": "nop endbr32 endbr64 wait prefetch prefetchw prefetchnta prefetcht0 prefetcht1 prefetcht2",
    "move": "mov movabs movzx movsx movsxd movbe bswap",
    "alu": "add sub and or xor cmp test inc dec neg not andn salc",
    "alu_carry": "adc sbb adcx adox",
    "lea": "lea",
    "extend": "cbw cwde cdqe cwd cdq cqo",
    "shift": "shl sal shr sar shlx shrx sarx rol ror rorx",
    "shift_carry": "rcl rcr",
    "shift_double": "shld shrd",
    "bit": "bt bts btr btc bextr blsi blsr blsmsk bzhi",
    "bit_scan": "bsf bsr lzcnt tzcnt popcnt pdep pext crc32",
    "cmov": "cmova cmovae cmovb cmovbe cmove cmovg cmovge cmovl cmovle cmovne cmovno cmovnp cmovns cmovo cmovp cmovs",
    "setcc": "seta setae setb setbe sete setg setge setl setle setne setno setnp setns seto setp sets",
    "flags": "clc cmc stc lahf sahf",
    "direction": "cld std",
    "decimal": "aaa aad aam aas daa das xlatb",
    "exchange": "xchg xadd",
    "compare_exchange": "cmpxchg",
    "compare_exchange_wide": "cmpxchg8b cmpxchg16b",
    "multiply": "mul imul mulx",
    "divide_8": "",
    "divide_16": "",
    "divide_32": "",
    "divide_64": "",
    "push": "push",
    "pop": "pop",
    "push_all": "pushaw pushal",
    "pop_all": "popaw popal",
    "push_flags": "pushf pushfd pushfq",
    "pop_flags": "popf popfd popfq",
    "enter": "enter",
    "leave": "leave",
    "bound": "bound",
    # Control transfer
    "jump": "jmp xbegin",
    "jump_indirect": "",
    "branch": "ja jae jb jbe je jg jge jl jle jne jno jnp jns jo jp js",
    "loop": "loop loope loopne jcxz jecxz jrcxz",
    "call": "call",
    "call_indirect": "",
    "return": "ret",
    "far": "lcall ljmp retf retfq rsm",
    "interrupt": "int int1 int3 into",
    "interrupt_return": "iret iretd iretq",
    "syscall": "syscall",
    "sysret": "sysret sysretq",
    "sysenter": "sysenter",
    "sysexit": "sysexit sysexitq",
    "vm_transfer": "vmcall vmmcall vmlaunch vmresume vmrun vmfunc",
    # String, one element each
    "string_move": "movsb movsw movsd movsq",
    "string_store": "stosb stosw stosd stosq",
    "string_load": "lodsb lodsw lodsd lodsq",
    "string_scan": "scasb scasw scasd scasq",
    "string_compare": "cmpsb cmpsw cmpsd cmpsq",
    "rep_move": "",
    "rep_store": "",
    # System
    "port": "in out",
    "port_string": "insb insw insd outsb outsw outsd",
    "fence": "mfence sfence clflush clflushopt clwb",
    "fence_load": "lfence",
    "pause": "pause",
    "cpuid": "cpuid",
    "read_tsc": "rdtsc rdtscp",
    "read_pmc": "rdpmc",
    "read_msr": "rdmsr",
    "write_msr": "wrmsr",
    "random": "rdrand rdseed",
    "read_xcr": "xgetbv rdpkru",
    "write_xcr": "xsetbv wrpkru",
    "read_cr": "smsw",
    "write_cr": "lmsw",
    "clear_ts": "clts",
    "debug_register": "",
    "invlpg": "invlpg invlpga",
    "invpcid": "invpcid invept invvpid",
    "wbinvd": "wbinvd invd wbnoinvd",
    "halt": "hlt mwait monitor mwaitx monitorx",
    "cli": "cli clac clgi",
    "sti": "sti stac stgi",
    "load_table": "lgdt lidt lldt ltr",
    "store_table": "sgdt sidt sldt str",
    "load_segment": "lds les lfs lgs lss",
    "query_segment": "lar lsl verr verw arpl",
    "swapgs": "swapgs rdfsbase rdgsbase wrfsbase wrgsbase",
    "vmx": "vmread vmwrite vmptrld vmptrst vmclear vmxon vmxoff vmload vmsave skinit",
    # x87
    "x87_move": "fld fst fstp fxch fld1 fldz fldpi fldl2e fldl2t fldlg2 fldln2 fabs fchs ffree ffreep fincstp fdecstp fnop "
                "fcmovb fcmovbe fcmove fcmovnb fcmovnbe fcmovne fcmovnu fcmovu fcmovnp",
    "x87_add": "fadd fiadd fsub fsubp fsubr fsubrp fisub fisubr fcom fcomp fcompp fcomi fcompi fucom fucomp fucompp "
               "fucomi fucompi ficom ficomp ftst fxam",
    "x87_multiply": "fmul fmulp fimul",
    "x87_divide": "fdiv fdivp fdivr fdivrp fidiv fidivr fsqrt",
    "x87_convert": "fild fist fistp fisttp frndint fxtract fscale",
    "x87_function": "fsin fcos fsincos fptan fpatan f2xm1 fyl2x fyl2xp1 fprem fprem1 fbld fbstp",
    "x87_control": "fldcw fnstcw fnstsw fnclex fninit",
    "state_save": "fxsave fxsave64 xsave xsave64 xsaveopt xsaveopt64 xsavec xsavec64 xsaves xsaves64 fnsave fnstenv",
    "state_restore": "fxrstor fxrstor64 xrstor xrstor64 xrstors xrstors64 frstor fldenv",
    # SIMD: the legacy, VEX and MMX spellings share a line; `v` is taken off before the look-up
    "simd_move": "movaps movapd movups movupd movdqa movdqu movd movq movss movsd movhps movhpd movlps movlpd movhlps movlhps "
                 "movntdq movntps movntpd movnti movntq movntdqa lddqu movddup movshdup movsldup movq2dq movdq2q "
                 "broadcastss broadcastsd pbroadcastb pbroadcastw pbroadcastd pbroadcastq extractf128 extracti128 "
                 "insertf128 inserti128 emms zeroupper zeroall femms maskmovdqu maskmovq",
    "simd_mask": "movmskps movmskpd pmovmskb ptest testps testpd comiss comisd ucomiss ucomisd",
    "simd_integer": "paddb paddw paddd paddq paddsb paddsw paddusb paddusw psubb psubw psubd psubq psubsb psubsw psubusb psubusw "
                    "pand pandn por pxor andps andpd andnps andnpd orps orpd xorps xorpd pcmpeqb pcmpeqw pcmpeqd pcmpeqq "
                    "pcmpgtb pcmpgtw pcmpgtd pcmpgtq pmaxub pmaxsb pmaxsw pmaxuw pmaxsd pmaxud pminub pminsb pminsw pminuw "
                    "pminsd pminud pabsb pabsw pabsd pavgb pavgw psignb psignw psignd blendps blendpd blendvps blendvpd "
                    "pblendw pblendd pblendvb psllw pslld psllq psrlw psrld psrlq psraw psrad psllvd psllvq psrlvd psrlvq psravd",
    "simd_shuffle": "pshufd pshufb pshuflw pshufhw pshufw shufps shufpd unpcklps unpckhps unpcklpd unpckhpd punpcklbw punpcklwd "
                    "punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq punpckhqdq packsswb packssdw packuswb packusdw palignr "
                    "pslldq psrldq permd permq permps permpd permilps permilpd perm2f128 perm2i128 pmovzxbw pmovzxbd pmovzxbq "
                    "pmovzxwd pmovzxwq pmovzxdq pmovsxbw pmovsxbd pmovsxbq pmovsxwd pmovsxwq pmovsxdq insertps extractps "
                    "pinsrb pinsrw pinsrd pinsrq pextrb pextrw pextrd pextrq",
    "simd_multiply_integer": "pmullw pmulld pmulhw pmulhuw pmulhrsw pmuludq pmuldq pmaddwd pmaddubsw psadbw mpsadbw phaddw phaddd "
                             "phaddsw phsubw phsubd phsubsw phminposuw",
    "simd_add": "addss addsd addps addpd subss subsd subps subpd addsubps addsubpd haddps haddpd hsubps hsubpd maxss maxsd maxps "
                "maxpd minss minsd minps minpd cmpss cmpsd cmpps cmppd roundss roundsd roundps roundpd",
    "simd_multiply": "mulss mulsd mulps mulpd dpps dppd rcpss rcpps rsqrtss rsqrtps",
    "simd_fused": "",
    "simd_divide_single": "divss divps sqrtss sqrtps",
    "simd_divide_double": "divsd divpd sqrtsd sqrtpd",
    "simd_convert": "cvtsi2ss cvtsi2sd cvtss2si cvtsd2si cvttss2si cvttsd2si cvtss2sd cvtsd2ss cvtps2pd cvtpd2ps cvtdq2ps cvtdq2pd "
                    "cvtps2dq cvtpd2dq cvttps2dq cvttpd2dq cvtpi2ps cvtpi2pd cvtps2pi cvtpd2pi cvttps2pi cvttpd2pi cvtph2ps cvtps2ph",
    "simd_crypto": "aesenc aesenclast aesdec aesdeclast aesimc aeskeygenassist pclmulqdq sha1rnds4 sha1nexte sha1msg1 sha1msg2 "
                   "sha256rnds2 sha256msg1 sha256msg2",
    "simd_text": "pcmpestri pcmpestrm pcmpistri pcmpistrm",
    "simd_gather": "gatherdps gatherqps gatherdpd gatherqpd pgatherdd pgatherqd pgatherdq pgatherqq",
    "simd_control": "ldmxcsr stmxcsr",
}

INDEX = {name: number for number, name in enumerate(CLASSES)}

# Where control may go anywhere but to the next instruction, taken or not: the block after it was entered by a transfer.
TRANSFERS = frozenset("jump jump_indirect branch loop call call_indirect return far interrupt interrupt_return "
                      "syscall sysret sysenter sysexit vm_transfer".split())
PORTS = frozenset(("port", "port_string"))
STRINGS = frozenset("string_move string_store string_load string_scan string_compare port_string".split())
# Classes whose price covers the memory operand; `load` and `store` are not added.
WHOLE = STRINGS | frozenset("rep_move rep_store nop lea state_save state_restore load_table store_table invlpg invpcid fence far bound "
                            "load_segment simd_gather simd_control x87_control vmx vm_transfer".split())

# What the block model says nothing of: microcode that waits for the pipeline or for something outside of it.  `REP` neither.
WITHOUT_MODEL = PORTS | frozenset(
    "default push_all pop_all push_flags pop_flags enter bound decimal far interrupt interrupt_return syscall sysret sysenter sysexit vm_transfer "
    "rep_move rep_store fence fence_load pause cpuid read_tsc read_pmc read_msr write_msr random read_xcr write_xcr read_cr write_cr clear_ts "
    "debug_register invlpg invpcid wbinvd halt cli sti load_table store_table load_segment query_segment swapgs vmx x87_function state_save "
    "state_restore".split())


def class_of(mnemonic):
    """The name of the class that `mnemonic` (capstone's spelling) belongs to by itself."""
    known = _BY_MNEMONIC.get(mnemonic)
    if known is None and mnemonic.startswith(("vfm", "vfnm")):
        known = "simd_fused"
    if known is None and mnemonic.startswith("v"):
        known = _BY_MNEMONIC.get(mnemonic[1:])
    return known or "default"


def _by_mnemonic():
    table = {}
    for name, mnemonics in CLASSES.items():
        for mnemonic in mnemonics.split():
            # A mnemonic of two classes (string MOVSD and SSE2 MOVSD) keeps the later; block.pyx tells them apart by opcode map.
            table[mnemonic] = name
    return table


_BY_MNEMONIC = _by_mnemonic()
