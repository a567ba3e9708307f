# SPDX-License-Identifier: GPL-2.0-or-later
"""The groups of instructions that a block-model profile has a line for, and which mnemonics belong to each.

A group is what processors make the same micro-operations of.  The mnemonic is capstone's, with the `v` of a VEX form taken
off; a group without mnemonics is chosen by the operands (`refine` in insn.pxd).  The order is the numbering.  Lines describe
the register form; a memory operand adds a load, or the two micro-operations of a store, by itself.
A mnemonic that stands nowhere is `default` and counted as uncovered.
"""

_CC = "a ae b be e g ge l le ne no np ns o p s".split()

GROUPS = {
    "default": "",
    # Integer.  The first lines have no execution at all: renamed away, or memory only.
    "nop": "nop endbr32 endbr64 clc",
    "move": "mov movabs",                     # register to register, 32 or 64 bits
    "zero": "",                               # a zeroing idiom that needs no execution
    "load": "",                               # MOV from memory; also the vector loads
    "store": "",                              # MOV to memory
    "prefetch": "prefetch prefetchw prefetchnta prefetcht0 prefetcht1 prefetcht2",
    "move_imm": "",
    "move_narrow": "",                        # MOV of 8 or 16 bits
    "move_segment": "",
    "alu": "add sub and or xor cmp test inc dec neg not cbw cwde cdqe movsx movsxd movzx stc cmc",
    "zero_extend": "",                        # MOVZX of a byte register, renamed away where moves are
    "alu_carry": "adc sbb adcx adox",
    "carry_store": "",                        # ADC, SBB with a memory destination
    "extend_high": "cdq cqo",
    "extend_high_16": "cwd",
    "lea": "lea",                             # at most two parts
    "lea_3": "",                              # base, index and displacement
    "lea_rip": "",
    "shift": "shl sal shr sar",
    "shift_cl": "",
    "rotate": "rol ror",
    "rotate_1": "",
    "rotate_cl": "",
    "rotate_carry": "rcl rcr",
    "rotate_carry_1": "",
    "shift_x": "shlx shrx sarx rorx",
    "shift_double": "shld shrd",
    "shift_double_cl": "",
    "bit": "bt bts btr btc",
    "bit_string": "",                         # BT of memory by a register
    "bit_scan": "bsf bsr",
    "bit_count": "popcnt lzcnt tzcnt",
    "bit_deposit": "pdep pext",
    "crc": "crc32",
    "bit_field": "bextr",
    "bit_low": "blsi blsr blsmsk bzhi andn",
    "bswap": "bswap movbe",
    "bswap_64": "",
    "cmov": " ".join("cmov" + c for c in _CC if c not in ("a", "be")),
    "cmov_2": "cmova cmovbe",                 # reads carry and zero
    "setcc": " ".join("set" + c for c in _CC if c not in ("a", "be")),
    "setcc_2": "seta setbe",
    "flags": "lahf sahf salc",
    "direction": "cld std",
    "exchange": "xchg xadd",
    "exchange_memory": "",                    # XCHG with memory: locked by itself
    "compare_exchange": "cmpxchg",
    "compare_exchange_wide": "cmpxchg8b cmpxchg16b",
    "locked": "",                             # any read-modify-write with LOCK
    "multiply": "",                           # IMUL of two or three operands, 32 or 64 bits
    "multiply_16i": "",                       # IMUL r16, r16, imm
    "multiply_8": "",
    "multiply_16": "",
    "multiply_32": "mul imul",                # one operand
    "multiply_64": "",
    "multiply_x": "mulx",
    "divide_8": "div idiv",
    "divide_16": "",
    "divide_32": "",
    "divide_64": "",
    "divide_signed_64": "",
    "push": "push",
    "pop": "pop",
    "push_flags": "pushf pushfd pushfq",
    "pop_flags": "popf popfd popfq",
    "leave": "leave",
    "enter": "enter",
    "decimal": "aaa aad aam aas daa das xlatb",
    # Control transfer
    "jump": "jmp",
    "branch": " ".join("j" + c for c in _CC) + " jcxz jecxz jrcxz",
    "loop": "loop loope loopne",
    "call": "call",
    "return": "ret",
    # String, one element
    "string_move": "movsb movsw movsq",
    "string_store": "stosb stosw stosd stosq",
    "string_load": "lodsb lodsw lodsd lodsq",
    "string_scan": "scasb scasw scasd scasq",
    "string_compare": "cmpsb cmpsw cmpsq",
    "string_repeat": "",
    # System
    "fence": "mfence",
    "fence_store": "sfence",
    "fence_load": "lfence",
    "flush": "clflush clflushopt clwb",
    "pause": "pause",
    "cpuid": "cpuid",
    "read_tsc": "rdtsc rdtscp rdpmc",
    "system": "wrmsr rdmsr cli sti hlt in out insb insw insd outsb outsw outsd lgdt lidt lldt ltr sgdt sidt sldt str smsw lmsw clts "
              "invlpg invpcid wbinvd invd swapgs syscall sysret sysretq sysenter sysexit sysexitq clac stac ud2 iret iretd iretq int int1 int3 lcall ljmp retf retfq "
              "xgetbv xsetbv rdrand rdseed lar lsl verr verw vmcall vmmcall monitor mwait",
    # x87
    "x87_move": "fld fst fstp fxch fld1 fldz fabs fchs ffree ffreep fincstp fdecstp fnop wait",
    "x87_cmov": "fcmovb fcmovbe fcmove fcmovnb fcmovnbe fcmovne fcmovnu fcmovu",
    "x87_add": "fadd fiadd fsub fsubp fsubr fsubrp fisub fisubr",
    "x87_compare": "fcom fcomp fcompp fcomi fcompi fucom fucomp fucompp fucomi fucompi ficom ficomp ftst fxam",
    "x87_multiply": "fmul fmulp fimul",
    "x87_divide": "fdiv fdivp fdivr fdivrp fidiv fidivr",
    "x87_root": "fsqrt",
    "x87_convert": "fild fist fistp fisttp frndint",
    "x87_function": "fsin fcos fsincos fptan fpatan f2xm1 fyl2x fyl2xp1 fprem fprem1 fbld fbstp fscale fxtract fldpi fldl2e fldl2t fldlg2 fldln2",
    "x87_control": "fldcw fnstcw fnstsw fnclex fninit",
    "state": "fxsave fxrstor xsave xrstor xsaveopt xsavec fxsave64 fxrstor64 xsave64 xrstor64 fnsave frstor fnstenv fldenv",
    # Vectors
    "vector_move": "movaps movups movapd movupd movdqa movdqu lddqu movntdqa movntps movntpd movntdq movnti",
    "vector_move_int": "movd",                # integer register to vector
    "vector_to_int": "",
    "vector_move_low": "movq",                # the low quadword
    "vector_merge": "movss movsd movhlps movlhps movlps movhps movlpd movhpd",
    "vector_logic": "pand pandn por pxor",
    "vector_logic_fp": "andps andpd andnps andnpd orps orpd xorps xorpd",
    "vector_add": "paddb paddw paddd paddq psubb psubw psubd psubq",
    "vector_alu": "paddsb paddsw paddusb paddusw psubsb psubsw psubusb psubusw pcmpeqb pcmpeqw pcmpeqd pcmpeqq pcmpgtb pcmpgtw pcmpgtd "
                  "pmaxub pmaxsb pmaxsw pmaxuw pmaxsd pmaxud pminub pminsb pminsw pminuw pminsd pminud pabsb pabsw pabsd pavgb pavgw "
                  "psignb psignw psignd",
    "vector_compare_64": "pcmpgtq",
    "vector_shift": "psllw pslld psllq psrlw psrld psrlq psraw psrad",      # by an immediate
    "vector_shift_x": "",                     # by a vector register
    "vector_shift_v": "psllvd psllvq psrlvd psrlvq psravd",
    "vector_shuffle": "pshufd pshufb pshuflw pshufhw pshufw punpcklbw punpcklwd punpckldq punpcklqdq punpckhbw punpckhwd punpckhdq "
                      "punpckhqdq packsswb packssdw packuswb packusdw palignr pslldq psrldq pmovzxbw pmovzxbd pmovzxbq pmovzxwd "
                      "pmovzxwq pmovzxdq pmovsxbw pmovsxbd pmovsxbq pmovsxwd pmovsxwq pmovsxdq",
    "vector_shuffle_fp": "shufps shufpd unpcklps unpckhps unpcklpd unpckhpd permilps permilpd insertps movddup movshdup movsldup",
    "vector_cross": "perm2f128 perm2i128 permd permq permps permpd insertf128 inserti128 extractf128 extracti128",
    "vector_broadcast": "broadcastss broadcastsd pbroadcastb pbroadcastw pbroadcastd pbroadcastq broadcastf128 broadcasti128",
    "vector_blend": "blendps blendpd pblendd",
    "vector_blend_16": "pblendw",
    "vector_blend_by": "blendvps blendvpd pblendvb",      # the mask in XMM0
    "vector_blend_by_4": "",                  # VEX: four operands
    "vector_multiply": "pmullw pmulhw pmulhuw pmulhrsw pmuludq pmuldq pmaddwd pmaddubsw",
    "vector_multiply_32": "pmulld",
    "vector_sad": "psadbw",
    "vector_msad": "mpsadbw",
    "vector_hadd": "phaddw phaddd phaddsw phsubw phsubd phsubsw",
    "vector_min_pos": "phminposuw",
    "vector_mask": "movmskps movmskpd pmovmskb",
    "vector_test": "ptest testps testpd",
    "vector_insert": "pinsrb pinsrw pinsrd pinsrq",
    "vector_insert_memory": "",
    "vector_extract": "pextrb pextrw pextrd pextrq extractps",
    "vector_extract_memory": "",
    "vector_mask_move": "maskmovps maskmovpd pmaskmovd pmaskmovq maskmovdqu maskmovq",
    "vector_gather": "gatherdps gatherqps gatherdpd gatherqpd pgatherdd pgatherqd pgatherdq pgatherqq",
    "fp_add": "addss addsd addps addpd subss subsd subps subpd addsubps addsubpd",
    "fp_compare": "maxss maxsd maxps maxpd minss minsd minps minpd cmpss cmpps cmppd",
    "fp_hadd": "haddps haddpd hsubps hsubpd",
    "fp_multiply": "mulss mulsd mulps mulpd",
    "fp_fused": "",                           # every FMA3 form
    "fp_dot_ps": "dpps",
    "fp_dot_pd": "dppd",
    "fp_order": "comiss comisd ucomiss ucomisd",
    "fp_divide_ss": "divss divps",
    "fp_divide_sd": "divsd divpd",
    "fp_divide_ps_256": "",
    "fp_divide_pd_256": "",
    "fp_root_ss": "sqrtss sqrtps",
    "fp_root_sd": "sqrtsd sqrtpd",
    "fp_root_ps_256": "",
    "fp_root_pd_256": "",
    "fp_reciprocal": "rcpss rcpps rsqrtss rsqrtps",
    "fp_round": "roundss roundsd roundps roundpd",
    "fp_from_int": "cvtsi2sd cvtsi2ss",
    "fp_from_int_64": "",                     # CVTSI2SS of 64 bits
    "fp_to_int": "cvtsd2si cvttsd2si cvtss2si cvttss2si",
    "fp_to_int_64": "",                       # CVTSS2SI to 64 bits
    "fp_narrow": "cvtsd2ss cvtpd2ps cvtpd2dq cvttpd2dq cvtps2ph",
    "fp_widen": "cvtss2sd cvtps2pd cvtdq2pd cvtph2ps",
    "fp_convert": "cvtdq2ps cvtps2dq cvttps2dq",
    "fp_mmx": "cvtpi2ps cvtpi2pd cvtps2pi cvtpd2pi cvttps2pi cvttpd2pi movq2dq movdq2q",
    "fp_control": "ldmxcsr stmxcsr",
    "aes": "aesenc aesenclast aesdec aesdeclast",
    "aes_key": "aesimc aeskeygenassist",
    "carryless": "pclmulqdq",
    "text_implicit": "pcmpistri pcmpistrm",
    "text_explicit": "pcmpestri pcmpestrm",
    "upper": "zeroupper",
    "upper_all": "zeroall emms femms",
}

INDEX = {name: number for number, name in enumerate(GROUPS)}

# What the first operand is, where it is not both read and written.
READS = frozenset("cmp test bt push jmp call comiss comisd ucomiss ucomisd ptest testps testpd mul div idiv prefetch prefetchw prefetchnta "
                  "prefetcht0 prefetcht1 prefetcht2 ldmxcsr nop fld fild fadd fsub fmul fdiv fldcw clflush clflushopt invlpg".split())
WRITES = frozenset("mov movabs movzx movsx movsxd movbe lea pop shlx shrx sarx rorx bextr andn blsi blsr blsmsk bzhi pdep pext mulx "
                   "lzcnt tzcnt popcnt bsf bsr "
                   "movaps movups movapd movupd movdqa movdqu lddqu movntdqa movntps movntpd movntdq movnti movd movq pshufd pshuflw "
                   "pshufhw pshufw movddup movshdup movsldup pabsb pabsw pabsd phminposuw movmskps movmskpd pmovmskb pextrb pextrw "
                   "pextrd pextrq extractps sqrtps sqrtpd rcpps rsqrtps roundps roundpd cvtsd2si cvttsd2si cvtss2si cvttss2si "
                   "cvtpd2ps cvtps2pd cvtdq2pd cvtpd2dq cvttpd2dq cvtdq2ps cvtps2dq cvttps2dq cvtph2ps cvtps2ph broadcastss "
                   "broadcastsd pbroadcastb pbroadcastw pbroadcastd pbroadcastq broadcastf128 broadcasti128 permq permpd extractf128 "
                   "extracti128 aesimc aeskeygenassist stmxcsr fst fstp fist fistp fisttp fnstcw fnstsw movq2dq movdq2q "
                   "cvtps2pi cvtpd2pi cvttps2pi cvttpd2pi".split()
                   + ["set" + c for c in _CC]
                   + [f"pmov{s}x{w}" for s in "sz" for w in ("bw", "bd", "bq", "wd", "wq", "dq")])


def _by_mnemonic():
    return {mnemonic: name for name, mnemonics in GROUPS.items() for mnemonic in mnemonics.split()}


_KNOWN = _by_mnemonic()


def bare(mnemonic):
    """`mnemonic` without the `v` of VEX, where the rest is one that is known."""
    return mnemonic[1:] if mnemonic.startswith("v") and mnemonic not in _KNOWN and mnemonic[1:] in _KNOWN else mnemonic


def group_of(mnemonic):
    """The name of the group that `mnemonic` (capstone's spelling) belongs to by itself."""
    if mnemonic.startswith(("vfmadd", "vfmsub", "vfnmadd", "vfnmsub")):
        return "fp_fused"
    if mnemonic.startswith(("cmp", "vcmp")) and mnemonic.endswith(("ps", "pd", "ss")):
        return "fp_compare"
    return _KNOWN.get(bare(mnemonic), "default")


def role_of(mnemonic):
    """What the first operand is, where the number of operands does not say it: "r", "w" or "rw"."""
    name = bare(mnemonic)
    return "r" if name in READS else ("w" if name in WRITES else "rw")
